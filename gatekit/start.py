"""Where a run starts that does not start from noise alone: the grid is cut, never placed anew."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gatekit.boundaries import Slices, placed
from gatekit.errors import ScheduleError
from gatekit.sigmas import boundary_to_sigma

if TYPE_CHECKING:
    from gatekit.path import Path as NoisePath
    from gatekit.schedule import Schedule


@dataclass(frozen=True)
class Start:
    """Where a run from a video starts.

    Attributes:
        given: How the schedule says it: ``timestep 700``.
        sigma: The sigma of the grid where the run begins.
        skipped: Names of the phases that lie wholly above it.
    """

    given: str
    sigma: float
    skipped: tuple[str, ...]

    def __str__(self) -> str:
        text = f"starts from a video, noised to sigma {self.sigma:.4g} (start: {self.given})"
        if self.skipped:
            text += f"; skips {', '.join(self.skipped)}"
        return text


def cut(schedule: Schedule, parts: Slices, path: NoisePath) -> tuple[Slices, Start | None]:
    """The sigmas from ``start`` on; phases that lie wholly above it have none.

    A sigma, timestep or log-SNR becomes the nearest sigma at which a step starts (of two equally
    near, the lower); ``step: k`` leaves out the first k steps, ``fraction`` that part of them.

    Raises:
        ScheduleError: No step would be left out, or none would be left.
    """
    if schedule.start is None:
        return parts, None
    kind, value = schedule.start.form
    sigmas = parts.run
    total = len(sigmas) - 1
    if kind in ("step", "fraction"):
        index = math.floor(value * total + 0.5) if kind == "fraction" else int(value)
        if not 1 <= index < total:
            raise ScheduleError(
                f"the grid has {total} steps; a start leaves out at least one and leaves one",
                where=schedule.source.where(("start",)),
                value=value,
                remedy=f"use step: 1 to {total - 1}, or a sigma",
            )
    else:
        asked = placed(schedule, ("start",), lambda: boundary_to_sigma(kind, value, path=path))
        index = min(range(total), key=lambda i: (abs(sigmas[i] - asked), -i))
    first = sigmas[index]
    kept = tuple(tuple(s for s in part if s <= first) for part in parts.sigmas)
    kept = tuple(part if len(part) > 1 else () for part in kept)
    names = tuple(p.name for p, part in zip(schedule.phases, kept, strict=True) if not part)
    return replace(parts, sigmas=kept), Start(str(schedule.start), first, names)
