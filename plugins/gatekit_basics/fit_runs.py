"""The runs of ``gatekit fit``: fine ones to measure on, and those of grids that are tried."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.curvature import Curvature, CurvatureParams
from gatekit_basics.fitting import fit
from gatekit_basics.travel import Fine, Travel, fine_grid, looked_at, mean_of, switches
from gatekit_basics.trying import Ends, tried

if TYPE_CHECKING:
    from torch import Tensor

FEW = 16  # steps below which the error is not linear: the grid is equidistributed instead
LAST = {True: 0.1, False: 0.02}  # last sigma of the equidistributed grid: few steps, or enough
USUAL = 0.05  # last sigma of ``gatekit curvature``
SAMPLED = {"use": "structure"}  # samples the fine run


class Runs:
    """Runs of one schedule on other grids, one for each input.

    Args:
        schedule: The schedule's file.
        overrides: Texts ``KEY=VALUE``.
        given: What videos are made from.
        warm: Keeps weights and prompts from run to run.
        where: Options of ``resolve``.
    """

    def __init__(
        self,
        schedule: Path,
        overrides: Sequence[str],
        given: Sequence[gatekit.Inputs],
        warm: gatekit.Warm,
        **where: Any,
    ) -> None:
        self.schedule, self.overrides, self.given = schedule, list(overrides), list(given)
        self.warm, self.where = warm, where

    def fine(self, steps: int) -> Fine:
        """Once over a fine grid that meets every switch, the history dropped there."""
        plan = self._plan([])
        values = fine_grid(plan.run_sigmas[0], steps, switches(plan))
        changes = [f"phases.{p.name}.sampler={json.dumps(SAMPLED)}" for p in plan.phases]
        pairs = zip(plan.phases, plan.phases[1:], strict=False)
        changes += [
            f"phases.{b.name}.history={'carry' if a.field == b.field else 'reset'}"
            for a, b in pairs
        ]
        finely = self._plan([_sigmas(values), *changes], require_files=True)
        travels = [Travel() for _ in self.given]
        with gatekit.Countdown((len(values) - 1) * len(self.given)) as bar:
            for i, (inputs, travel) in enumerate(zip(self.given, travels, strict=True), start=1):
                bar.doing(f"fine run {i} of {len(self.given)}")
                watching = [travel, lambda *_: bar.advance()]
                gatekit.run(finely, inputs, observers=watching, warm=self.warm, decode=False)
        return mean_of(travels, switches(plan), [as_plain(inputs) for inputs in self.given])

    def ends(self, bar: gatekit.Countdown) -> Ends:
        """Runs a grid for every input: its ends.

        None where a run became NaN, and where the grid leaves a phase without a step.
        """
        self._plan([], require_files=True)  # what is refused from here on is a grid
        watching = [lambda *_: bar.advance()]

        def run(grid: list[float]) -> Tensor | None:
            import torch

            try:
                plan = self.planned(grid)
                made = [
                    gatekit.run(plan, inputs, observers=watching, warm=self.warm, decode=False)
                    for inputs in self.given
                ]
            except (gatekit.ScheduleError, gatekit.NumericsError):
                return None
            return torch.cat([looked_at(result.latent[None]) for result in made])

        return run

    def planned(self, grid: Sequence[float]) -> gatekit.Plan:
        """The schedule on a grid. Raises ScheduleError where that leaves a phase without a step."""
        return self._plan([_sigmas(grid)])

    def _plan(self, changes: Sequence[str], **options: Any) -> gatekit.Plan:
        schedule = gatekit.load_schedule(self.schedule, [*self.overrides, *changes])
        return gatekit.resolve(schedule, **options, **self.where)


def _sigmas(values: Sequence[float]) -> str:
    return f"sigmas={json.dumps({'use': 'explicit', 'values': list(values)})}"


def measured_on(plan: gatekit.Plan) -> list[str]:
    """What a measurement is of: it serves plans of which this is the same, and no others."""
    latent = "x".join(str(n) for n in plan.family.latent_shape(plan.video))
    fields = [f"from {plan.run_sigmas[0]:.6f}", f"latent {latent}"]
    return fields + [f"{p.field} {p.boundary.until:.6f}" for p in plan.phases]


def as_plain(inputs: gatekit.Inputs) -> dict[str, Any]:
    """Of what a fine run was made from."""
    image = None if inputs.image is None else str(inputs.image)
    return {"prompt": inputs.prompt, "image": image, "seed": inputs.seed}


def from_plain(inputs: Mapping[str, Any]) -> gatekit.Inputs:
    """Inverse of ``as_plain``."""
    image = None if inputs["image"] is None else Path(inputs["image"])
    return gatekit.Inputs(prompt=inputs["prompt"], image=image, seed=inputs["seed"])


def placed(fine: Fine, first: float, steps: int) -> tuple[list[float], bool]:
    """A grid from ``first`` to 0 without a run of it, and whether fitted or equidistributed."""
    few = steps < FEW
    start = _equidistributed(fine, first, steps, LAST[few])
    return (start, False) if few else (fit(fine.travelled, start), True)


def chosen(
    fine: Fine,
    first: float,
    steps: int,
    ends: Ends,
    runs: int,
    own: Sequence[float] | None = None,
) -> list[tuple[float, list[float]]]:
    """At most ``runs`` grids, run, with the errors of their ends, best first.

    Those of ``curvature`` with the last sigma of the command of this name and with another, the
    schedule's ``own``, the one of ``placed``, and those of a search.

    Raises:
        NumericsError: None of them came to an end.
    """
    few = steps < FEW
    smooth = [_equidistributed(fine, first, steps, last) for last in (USUAL, LAST[few])]
    others = [] if own is None else [list(own)]
    others += [] if few else [placed(fine, first, steps)[0]]
    found = tried(smooth, others, fine.travelled.boundaries, ends, fine.ends, runs)
    if found[0][0] == math.inf:
        raise gatekit.NumericsError(
            f"none of {len(found)} grids could be run: each ended at NaN or infinity, or left a "
            "phase without a step",
            value=f"{steps} steps",
            remedy="run the schedule as it is first, or take more steps",
        )
    return found


def _equidistributed(fine: Fine, first: float, steps: int, last: float) -> list[float]:
    given = {"profile": fine.profile, "sigma_min": last}
    return list(Curvature(CurvatureParams.model_validate(given)).stretch(first, 0.0, steps))
