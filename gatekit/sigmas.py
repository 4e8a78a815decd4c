"""Sigma grids, their partition into phases, and the five ways to name a boundary.

Sigmas are Python floats after shift, made once before a run. Concrete grids come from
plugins (``gatekit_basics`` has the usual ones).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from gatekit.errors import InputError, ScheduleError
from gatekit.params import GridParams
from gatekit.path import Path, RectifiedFlow

TOLERANCE = 1e-6
BOUNDARIES = ("sigma", "timestep", "fraction", "step", "log_snr")


class SigmaGrid(ABC):
    """A rule that places sigmas.

    Class attributes:
        name: What schedules say in ``sigmas.use``.
        Params: The other keys of ``sigmas``, without ``steps``.
    """

    name: ClassVar[str]
    Params: ClassVar[type[GridParams]] = GridParams

    def __init__(self, params: GridParams | None = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    @property
    def start(self) -> float:
        """First sigma of a whole run."""
        return 1.0

    @property
    def fixed_steps(self) -> int | None:
        """The only number of steps the grid has, if there is only one."""
        return None

    @abstractmethod
    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """``steps + 1`` sigmas from ``start`` down to ``end``; both ends are overwritten."""

    def __call__(self, steps: int) -> tuple[float, ...]:
        """``steps + 1`` sigmas from the grid's start to 0."""
        return self.stretch(self.start, 0.0, steps)

    def stretch(self, start: float, end: float, steps: int) -> tuple[float, ...]:
        """A phase's own grid: ``steps + 1`` sigmas from ``start`` to ``end``, both exact.

        Raises:
            ScheduleError: No step, an empty stretch, or two sigmas that coincide.
        """
        if steps < 1:
            raise ScheduleError(
                "a grid needs at least one step", value=steps, remedy="give 1 or more"
            )
        if not start > end >= 0.0:
            raise ScheduleError(
                f"no room for steps between sigma {start:.6g} and {end:.6g}",
                remedy="let the boundary lie below the sigma where the phase starts",
            )
        sigmas = (start, *self.points(start, end, steps)[1:-1], end)
        if len(sigmas) != steps + 1 or any(a <= b for a, b in pairwise(sigmas)):
            raise ScheduleError(
                f"grid {self.name!r} cannot place {steps} steps between sigma {start:.6g} "
                f"and {end:.6g}",
                value=sigmas,
                remedy="use fewer steps or another grid",
            )
        return sigmas


def as_sigmas(values: Iterable[Any], path: Path | None = None) -> tuple[float, ...]:
    """Check a list (or tensor) of sigmas and make Python floats of it.

    Raises:
        InputError: Fewer than two, not strictly descending, negative, NaN, or above the path's
            largest sigma.
    """
    sigmas = tuple(float(v) for v in values)
    limit = path.sigma_max if path else math.inf
    if len(sigmas) < 2:
        raise InputError(
            "a run needs at least two sigmas", value=sigmas, remedy="such as [1.0, 0.5, 0.0]"
        )
    if not all(a > b for a, b in pairwise(sigmas)) or sigmas[-1] < 0.0:
        raise InputError(
            "sigmas must descend strictly to 0 or above",
            value=sigmas,
            remedy="sort and de-duplicate",
        )
    if sigmas[0] > limit or math.isinf(sigmas[0]):
        raise InputError(
            f"sigmas on this path are finite and at most {limit:g}",
            value=sigmas[0],
            remedy="lower the first",
        )
    return sigmas


def partition(
    sigmas: Sequence[float], untils: Sequence[float | None], names: Sequence[str] | None = None
) -> tuple[tuple[float, ...], ...]:
    """Split one global grid into phases without inserting a point.

    A step belongs to the phase of its START sigma: to the first phase with
    sigma >= until - 1e-6 (Wan's rule). Each slice includes the sigma where its last step ends,
    which is the first of the next slice.

    Args:
        sigmas: The whole grid, descending.
        untils: A boundary for each phase, descending; None (or 0) for the last.
        names: Names of the phases, for messages.

    Raises:
        ScheduleError: A boundary out of order, or a phase left without a step; ``value`` is its
            boundary, and the message names the nearest sigma.
    """
    names = names or [f"phases[{i}]" for i in range(len(untils))]
    bounds = [0.0 if until is None else until for until in untils]
    for i, (above, below) in enumerate(pairwise(bounds)):
        if below >= above:
            raise ScheduleError(
                f"boundary of {names[i + 1]} does not lie below that of {names[i]} ({above:.6g})",
                value=below,
                remedy="let boundaries descend",
            )
    if not bounds or bounds[-1] > 0.0:
        raise ScheduleError("the last phase must reach sigma 0", remedy="leave out its boundary")
    owner = [
        next(p for p, bound in enumerate(bounds) if sigma >= bound - TOLERANCE)
        for sigma in sigmas[:-1]
    ]
    slices: list[tuple[float, ...]] = []
    for phase, (name, bound) in enumerate(zip(names, bounds, strict=True)):
        steps = [i for i, p in enumerate(owner) if p == phase]
        if not steps:
            nearest = min(sigmas[:-1], key=lambda s: abs(s - bound))
            raise ScheduleError(
                f"{name} is left without a step",
                value=untils[phase],
                remedy=f"a step belongs to the phase of its start; the nearest start is sigma "
                f"{nearest:.6g}; move 'until', or take more steps",
            )
        slices.append(tuple(sigmas[steps[0] : steps[-1] + 2]))
    return tuple(slices)


def boundary_to_sigma(
    kind: str,
    value: float,
    *,
    sigmas: Sequence[float] | None = None,
    path: Path | None = None,
    timesteps: float = 1000.0,
) -> float:
    """Any of the five forms of a boundary, as a sigma after shift.

    Args:
        kind: ``sigma``; ``timestep`` (sigma * timesteps); ``fraction`` of the run's steps;
            ``step``, the number of steps taken before the boundary; ``log_snr`` =
            log(alpha^2/sigma^2).
        value: The boundary, in that unit.
        sigmas: The run's whole grid, for ``fraction`` and ``step``. They become the start sigma
            of the last step before the boundary.
        path: Noise path, for ``log_snr``; a rectified flow if None.
        timesteps: Model timestep at sigma 1.

    Raises:
        ScheduleError: An unknown kind, or a value outside what the run has.
    """
    match kind:
        case "sigma":
            sigma = float(value)
        case "timestep":
            sigma = value / timesteps
        case "log_snr":
            sigma = (path or RectifiedFlow()).from_ve(math.exp(min(-value / 2.0, 700.0)))
        case "fraction" | "step":
            if sigmas is None:
                raise ScheduleError(
                    f"a boundary as {kind} needs one grid for the whole run",
                    remedy="give it as sigma, timestep or log_snr where phases have own steps",
                )
            total = len(sigmas) - 1
            step = math.floor(value * total + 0.5) if kind == "fraction" else int(value)
            if (kind == "step" and step != value) or not 1 <= step < total:
                unit = f"1 to {total - 1}" if kind == "step" else "above 0 and below 1"
                raise ScheduleError(
                    f"the run has {total} steps; a boundary as {kind} lies in {unit}",
                    value=value,
                    remedy="leave a step on both sides",
                )
            return sigmas[step - 1]
        case _:
            raise ScheduleError(
                "unknown form of boundary", value=kind, remedy=f"use one of {', '.join(BOUNDARIES)}"
            )
    limit = (path or RectifiedFlow()).sigma_max
    if not 0.0 <= sigma <= limit:
        remedy = "'gatekit plan' without the boundary shows the sigmas there are"
        if kind == "sigma" and 10.0 <= value <= timesteps:  # 900 is no sigma, but a timestep
            remedy = f"a timestep is written {{timestep: {value:g}}}"
        raise ScheduleError(
            f"a boundary is a sigma from 0 to {limit:g}"
            + ("" if kind == "sigma" else f"; this {kind} is sigma {sigma:.6g}"),
            value=value,
            remedy=remedy,
        )
    return sigma
