"""From ``sigmas``, ``until`` and ``steps`` of a schedule to the sigmas of every phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from gatekit.allotment import allotted, lengths
from gatekit.errors import ScheduleError
from gatekit.sigmas import boundary_to_sigma, partition

if TYPE_CHECKING:
    from gatekit.path import Path as NoisePath
    from gatekit.schedule import Schedule
    from gatekit.sigmas import SigmaGrid
    from gatekit.yamlsource import KeyPath

T = TypeVar("T")


@dataclass(frozen=True)
class Boundary:
    """Where a phase ends.

    Attributes:
        given: How the schedule says it: ``timestep 900``; ``end`` for the last phase.
        until: The boundary as a sigma.
        reached: The sigma where the phase's last step ends.
    """

    given: str
    until: float
    reached: float

    def __str__(self) -> str:
        if self.given == "end":
            return "to 0"
        became = f"until {self.given}"
        if not self.given.startswith("sigma "):
            became += f" = sigma {self.until:.4g}"
        return f"{became}, reaches {self.reached:.4g}"


@dataclass(frozen=True)
class Slices:
    """Sigmas of every phase, and how its end was given."""

    sigmas: tuple[tuple[float, ...], ...]
    boundaries: tuple[Boundary, ...]

    @property
    def run(self) -> tuple[float, ...]:
        """Every sigma once, from the first to the last."""
        return (*(s for part in self.sigmas for s in part[:-1]), self.sigmas[-1][-1])


def placed(schedule: Schedule, at: KeyPath, call: Callable[[], T], *, key: bool = False) -> T:
    """Call something that raises ScheduleError without a place, and add the place."""
    try:
        return call()
    except ScheduleError as exc:
        raise ScheduleError(
            exc.message,
            where=schedule.source.where((*at, *exc.key), key=key)
            if exc.where is None
            else exc.where,
            value=exc.value,
            remedy=exc.remedy,
        ) from exc


def slices(
    schedule: Schedule, grid: SigmaGrid, own: Sequence[SigmaGrid | None], path: NoisePath
) -> Slices:
    """Sigmas of every phase.

    Args:
        schedule: Its ``sigmas`` and ``phases``.
        grid: The grid of the whole run.
        own: The grid of each phase that has its own steps, None for one that uses ``grid``.
        path: The family's noise path.

    Raises:
        ScheduleError: With the place of the key that cannot be.
    """
    if shared(schedule):
        counts = _allotted(schedule, grid, own, path)
        found = _own_steps(schedule, [g or grid for g in own], counts, path)
    elif any(phase.steps is not None for phase in schedule.phases):
        counts = [phase.steps or 1 for phase in schedule.phases]
        found = _own_steps(schedule, [g or grid for g in own], counts, path)
    else:
        found = _one_grid(schedule, grid, path)
    if found.run[0] > path.sigma_max:
        at: KeyPath = ("phases", 0, "sigmas") if own[0] else ("sigmas",)
        raise ScheduleError(
            f"sigmas on the path {path.name!r} are at most {path.sigma_max:g}",
            where=schedule.source.where(at),
            value=found.run[0],
            remedy="lower the first sigma of the grid",
        )
    return found


def _one_grid(schedule: Schedule, grid: SigmaGrid, path: NoisePath) -> Slices:
    steps = _steps(schedule, grid)
    sigmas = placed(schedule, ("sigmas",), lambda: grid(steps))
    untils = [_sigma(schedule, i, sigmas, path) for i in range(len(schedule.phases))]
    names = [f"phase {phase.name!r}" for phase in schedule.phases]
    try:
        parts = partition(sigmas, untils, names)
    except ScheduleError as exc:
        culprit = len(untils) - 1
        if exc.value is not None and exc.value in untils:
            culprit = max(i for i, until in enumerate(untils) if until == exc.value)
        at = schedule.source.where(("phases", culprit, "until"))
        raise ScheduleError(exc.message, where=at, value=exc.value, remedy=exc.remedy) from exc
    return Slices(parts, _boundaries(schedule, untils, parts))


def _steps(schedule: Schedule, grid: SigmaGrid) -> int:
    steps, fixed = schedule.sigmas.steps, grid.fixed_steps
    if fixed is not None and steps not in (None, fixed):
        raise ScheduleError(
            f"this grid has {fixed} steps",
            where=schedule.source.where(("sigmas", "steps")),
            value=steps,
            remedy="take 'steps' out",
        )
    if steps is None and fixed is None:
        raise ScheduleError(
            "the number of steps is missing",
            where=schedule.source.where(("sigmas",)),
            remedy="add 'steps' there, or in every phase",
        )
    return steps if steps is not None else fixed or 1


def shared(schedule: Schedule) -> bool:
    """Whether the run's steps are shared out between phases."""
    rule, shares = schedule.sigmas.allot, [phase.share for phase in schedule.phases]
    return rule is not None or any(share is not None for share in shares)


def _allotted(
    schedule: Schedule, grid: SigmaGrid, own: Sequence[SigmaGrid | None], path: NoisePath
) -> Sequence[int]:
    total, rule = schedule.sigmas.steps or 1, schedule.sigmas.allot
    weights: Sequence[float] = [phase.share or 1.0 for phase in schedule.phases]
    if rule is not None:
        untils = [_sigma(schedule, i, None, path) or 0.0 for i in range(len(schedule.phases))]
        bounds = [(own[0] or grid).start, *untils]
        weights = placed(schedule, ("sigmas", "allot"), lambda: lengths(rule, bounds, grid, path))
    return placed(schedule, ("sigmas", "steps"), lambda: allotted(total, weights))


def _own_steps(
    schedule: Schedule, grids: Sequence[SigmaGrid], counts: Sequence[int], path: NoisePath
) -> Slices:
    untils = [_sigma(schedule, i, None, path) for i in range(len(schedule.phases))]
    parts: list[tuple[float, ...]] = []
    start = grids[0].start
    for i, (phase, grid, until) in enumerate(zip(schedule.phases, grids, untils, strict=True)):
        end, steps, begin = until or 0.0, counts[i], start
        key = "until" if phase.until is not None and not begin > end else "steps"
        part = placed(
            schedule,
            ("phases", i, key),
            lambda grid=grid, begin=begin, end=end, steps=steps: grid.stretch(begin, end, steps),
        )
        parts.append(part)
        start = part[-1]
    return Slices(tuple(parts), _boundaries(schedule, untils, parts))


def _sigma(
    schedule: Schedule, index: int, sigmas: Sequence[float] | None, path: NoisePath
) -> float | None:
    until = schedule.phases[index].until
    if until is None:
        return None
    kind, value = until.form
    return placed(
        schedule,
        ("phases", index, "until"),
        lambda: boundary_to_sigma(kind, value, sigmas=sigmas, path=path),
    )


def _boundaries(
    schedule: Schedule, untils: Sequence[float | None], parts: Sequence[tuple[float, ...]]
) -> tuple[Boundary, ...]:
    return tuple(
        Boundary(str(phase.until) if phase.until else "end", until or 0.0, part[-1])
        for phase, until, part in zip(schedule.phases, untils, parts, strict=True)
    )
