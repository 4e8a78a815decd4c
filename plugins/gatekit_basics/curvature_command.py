"""``gatekit curvature``: measure where a schedule's own models bend, and write a grid from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import gatekit
from gatekit_basics.changes import as_yaml, extending
from gatekit_basics.curvature import log_profile, theta

if TYPE_CHECKING:
    from torch import Tensor

POINTS = 32  # of the profile that is written


class Bends:
    """An observer that measures D'' in theta along a run, phase by phase.

    The second divided difference of three predictions in a row; the jump from one model to the
    next is no curvature, so no difference spans a boundary.
    """

    def __init__(self) -> None:
        self.sigmas: list[float] = []
        self.values: list[float] = []
        self._last: list[tuple[str, float, Tensor]] = []

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """Take one more prediction."""
        if self._last and self._last[-1][0] != record.phase:
            self._last = []
        self._last = [*self._last[-2:], (record.phase, record.sigma, denoised)]
        if len(self._last) == 3:
            (_, s0, d0), (_, s1, d1), (_, s2, d2) = self._last
            t0, t1, t2 = (theta(s) for s in (s0, s1, s2))
            second = ((d2 - d1) / (t2 - t1) - (d1 - d0) / (t1 - t0)) * (2.0 / (t2 - t0))
            self.sigmas.append(s1)
            self.values.append(float(second.square().mean().sqrt()))


def thinned(sigmas: list[float], logs: list[float], points: int = POINTS) -> list[list[float]]:
    """About ``points`` pairs (sigma, density), the largest density 1, evenly taken."""
    import math

    step = max(1, (len(sigmas) - 1) // (points - 1))
    chosen = sorted({*range(0, len(sigmas), step), len(sigmas) - 1})
    top = max(logs)
    return [[round(sigmas[i], 5), float(f"{math.exp(logs[i] - top):.3g}")] for i in chosen]


def measure(
    schedule: gatekit.Schedule, inputs: gatekit.Inputs, steps: int, **where: Any
) -> list[list[float]]:
    """Run ``schedule`` once with ``steps`` steps and return its profile."""
    plan = gatekit.resolve(schedule, require_files=True, **where)
    bends = Bends()
    with gatekit.Countdown(steps) as bar:
        bar.doing("fine run")
        gatekit.run(plan, inputs, observers=[bends, lambda *_: bar.advance()])
    if len(bends.sigmas) < 2:
        raise gatekit.InputError(
            "too few steps to measure curvature", where="--steps", value=steps, remedy="use 100"
        )
    return thinned(bends.sigmas, log_profile(bends.sigmas, bends.values))


def curvature(
    schedule: Annotated[Path, typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml).")],
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="What to show meanwhile.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT.yaml", help="The schedule to write.")
    ],
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the noise.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=16, help="Steps of the fine run.")] = 100,
    overrides: gatekit.SetOption = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
) -> None:
    """Measure where a schedule's models bend; write a schedule whose grid follows them."""
    gatekit.check_out(out, new=True)
    fine = gatekit.load_schedule(schedule, [*(overrides or []), f"sigmas.steps={steps}"])
    inputs = gatekit.Inputs(prompt=prompt, image=image, seed=seed)
    profile = measure(fine, inputs, steps, models_dir=models_dir, device=device)
    text = _written(schedule, out, overrides or [], profile, steps, seed)
    gatekit.write_atomic(out, text.encode())
    print(out)


def _written(
    schedule: Path,
    out: Path,
    overrides: list[str],
    profile: list[list[float]],
    steps: int,
    seed: int,
) -> str:
    pairs = "".join(f"    - [{sigma:g}, {density:g}]\n" for sigma, density in profile)
    changed = "".join(f"{line}\n" for line in extending(schedule, out, overrides))
    return (
        f"# The grid of {schedule.name}, made from its models' own curvature over {steps} steps\n"
        f"# (seed {seed}). Pairs of sigma and relative density of steps.\n"
        f"{changed}sigmas:\n  use: curvature\n{_own(schedule, overrides)}"
        f"  sigma_min: 0.05\n  profile:\n{pairs}"
    )


def _own(schedule: Path, overrides: list[str]) -> str:
    """What ``sigmas`` keeps with any grid, where ``--set`` changed it: steps, allotment."""
    if not overrides:
        return ""
    found = gatekit.load_schedule(schedule, overrides).to_dict().get("sigmas", {})
    kept = {key: found[key] for key in ("steps", "allot") if key in found}
    return "".join(f"{line}\n" for line in as_yaml(kept, 2))
