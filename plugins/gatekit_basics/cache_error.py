"""What a step cache costs in error and saves in passes: measured against the uncached run."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.caches import run

if TYPE_CHECKING:
    from torch import Tensor

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """One variation of a schedule, over all seeds.

    Attributes:
        name: What it is.
        passes: Model passes of a run.
        skipped: Mean number of passes skipped, by phase.
        error: Root mean square of the latent's difference from the uncached run, over that run's
            own; over all seeds.
        seconds: Mean time of a run's steps.
    """

    name: str
    passes: int
    skipped: Mapping[str, float]
    error: float
    seconds: float


@dataclass
class Magnitudes(gatekit.StepCache):
    """Skips nothing; notes how the size of what all blocks add changes from pass to pass.

    The step is log of the mean over tokens of |r|/|r'| (MagCache's ratio); their sum is the
    logarithm of the curve that ``mag`` takes.
    """

    name = "magnitudes"
    found: Points = field(default_factory=list[tuple[float, float]])

    def through(
        self,
        blocks: Sequence[gatekit.Block],
        hidden: Tensor,
        sigma: float,
        memory: Mapping[str, Any],
    ) -> gatekit.Cached:
        """All blocks."""
        out = run(blocks, hidden)
        size = (out - hidden).float().norm(dim=-1)
        log = 0.0
        if memory:
            ratio = float((size / memory["size"].clamp_min(1e-8)).mean())
            log = memory["log"] + math.log(ratio)
        self.found.append((sigma, log))
        return gatekit.Cached(out, {"size": size, "log": log})

    def profile(self) -> list[list[float]]:
        """Pairs (sigma, magnitude), descending in sigma, the first magnitude 1."""
        sigmas = sorted({sigma for sigma, _ in self.found}, reverse=True)
        logs = [[log for at, log in self.found if at == sigma] for sigma in sigmas]
        means = [sum(each) / len(each) for each in logs]
        return [
            [round(sigma, 5), float(f"{math.exp(mean - means[0]):.5g}")]
            for sigma, mean in zip(sigmas, means, strict=True)
        ]


def variations(
    schedule: gatekit.Schedule, thresholds: Sequence[float], steps: Sequence[int]
) -> dict[str, list[str]]:
    """Name -> overrides.

    Thresholds go to every phase that has a cache; where none has one, to ``first_block`` in all.
    Without thresholds it is what the schedule says, if it says anything.
    """
    own = {p.name: {"use": p.cache.use, **p.cache.params} for p in schedule.phases}
    cached = {name: cache for name, cache in own.items() if cache["use"] != "none"}
    found: dict[str, list[str]] = {"as the schedule says": []} if cached and not thresholds else {}
    cached = cached or {name: {"use": "first_block"} for name in own}
    for threshold in thresholds:
        changes = [
            f"phases.{name}.cache={json.dumps({**cache, 'threshold': threshold})}"
            for name, cache in cached.items()
        ]
        found[f"threshold {threshold:g}"] = changes
    off = uncached(schedule)
    found |= {f"uncached, {n} steps": [*off, f"sigmas.steps={n}"] for n in steps}
    return found


def uncached(schedule: gatekit.Schedule) -> list[str]:
    """Overrides that take every cache out."""
    return [f"phases.{p.name}.cache=none" for p in schedule.phases]


def measure(
    file: Path,
    overrides: Sequence[str],
    inputs: Sequence[gatekit.Inputs],
    thresholds: Sequence[float],
    steps: Sequence[int] = (),
    **where: Any,
) -> tuple[list[Row], dict[str, list[list[float]]]]:
    """Run a schedule without its caches, then with each variation, from the same noise.

    Returns:
        The uncached run first, then each variation; and each phase's profile for ``mag``.

    Raises:
        ScheduleError: A variation that cannot be.
    """
    schedule = gatekit.load_schedule(file, [*overrides])

    def plan(changes: Sequence[str]) -> gatekit.Plan:
        changed = gatekit.load_schedule(file, [*overrides, *changes])
        return gatekit.resolve(changed, require_files=True, **where)

    whole = plan(uncached(schedule))
    plans = {n: plan(c) for n, c in variations(schedule, thresholds, steps).items()}
    notes = {phase.name: Magnitudes() for phase in whole.phases}
    noted = replace(whole, phases=tuple(replace(p, cache=notes[p.name]) for p in whole.phases))
    warm = gatekit.Warm()
    total = sum(len(p.table()) for p in (whole, noted, *plans.values())) * len(inputs)
    rows: list[Row] = []
    with gatekit.Countdown(total) as bar, contextlib.closing(warm):

        def latents(name: str, plan: gatekit.Plan) -> list[gatekit.Result]:
            bar.doing(name)
            kept: Any = {"observers": [lambda *_: bar.advance()], "warm": warm, "decode": False}
            return [gatekit.run(plan, each, **kept) for each in inputs]

        latents("magnitudes", noted)
        exact = latents("uncached", whole)
        rows.append(row("uncached", exact, exact))
        rows += [row(name, latents(name, plan), exact) for name, plan in plans.items()]
    return rows, {name: note.profile() for name, note in notes.items()}


def row(name: str, made: Sequence[gatekit.Result], exact: Sequence[gatekit.Result]) -> Row:
    """What a variation came to."""
    pairs = list(zip(made, exact, strict=True))
    off = sum(float((a.latent - b.latent).double().square().mean()) for a, b in pairs)
    size = sum(float(b.latent.double().square().mean()) for b in exact)
    skipped: dict[str, float] = {}
    for result in made:
        for record in result.trajectory:
            skipped[record.phase] = skipped.get(record.phase, 0.0) + record.skipped / len(made)
    return Row(
        name,
        sum(record.passes for record in made[0].trajectory),
        skipped,
        math.sqrt(off / size),
        sum(result.trajectory.seconds for result in made) / len(made),
    )
