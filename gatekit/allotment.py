"""How many steps of the run each phase gets: by shares that phases name, or by a rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from gatekit.errors import ScheduleError

if TYPE_CHECKING:
    from gatekit.path import Path as NoisePath
    from gatekit.sigmas import SigmaGrid

FINE = 1000  # steps of the grid that the rule ``grid`` counts
LAM_ENDS = (0.98, 0.02)  # of sigma_max, and in sigma: lam is infinite at a flow's 1, and at 0


def allotted(total: int, weights: Sequence[float]) -> tuple[int, ...]:
    """``total`` steps in proportion to ``weights``: largest remainders, each at least 1.

    Raises:
        ScheduleError: Fewer steps than phases.
    """
    if total < len(weights):
        raise ScheduleError(
            f"{len(weights)} phases need at least a step each",
            value=total,
            remedy=f"give {len(weights)} steps or more",
        )
    whole = math.fsum(weights)
    quotas = [total * weight / whole for weight in weights]
    steps = [max(1, math.floor(quota)) for quota in quotas]
    while (left := total - sum(steps)) != 0:
        # Short by one: to the largest remainder; one too many: from the smallest that has two.
        places = [i for i, count in enumerate(steps) if left > 0 or count > 1]
        short = [(quotas[i] - steps[i], -i) for i in places]
        chosen = -(max(short) if left > 0 else min(short))[1]
        steps[chosen] += 1 if left > 0 else -1
    return tuple(steps)


def lengths(
    rule: str, bounds: Sequence[float], grid: SigmaGrid, path: NoisePath
) -> tuple[float, ...]:
    """Weights of the stretches between ``bounds``, descending, by a rule.

    Args:
        rule: ``theta``, ``lam``: the length of the stretch in that coordinate; ``grid``: how many
            steps of a fine grid over the whole run start in it.
        bounds: Sigmas from the run's first to 0.
        grid: The run's.
        path: Noise path.

    Raises:
        ScheduleError: A grid with a number of steps of its own.
    """
    if rule == "grid":
        if grid.fixed_steps is not None:
            raise ScheduleError(
                f"grid {grid.name!r} has {grid.fixed_steps} steps, whatever is asked",
                value=rule,
                remedy="use allot: theta or lam, or no 'allot'",
            )
        starts = grid(FINE)[:-1]
        return tuple(
            max(1e-9, float(sum(above >= s > below for s in starts)))
            for above, below in pairwise(bounds)
        )
    if rule == "lam":
        top, bottom = path.sigma_max * LAM_ENDS[0], LAM_ENDS[1]
        bounds = [min(max(s, bottom), top) for s in bounds]
    places = [path.coordinate(rule, s) for s in bounds]
    return tuple(max(1e-9, b - a) for a, b in pairwise(places))
