"""Grids by a few numbers: one grid, bent and shifted where the end of a run asks for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from gatekit_basics.curvature import sigma_of, theta

if TYPE_CHECKING:
    from gatekit_basics.travelled import Vector

POINTS = 2048  # of the integral of the density
HIGH = (-3.2, -1.9)  # lam: the factor for high noise is whole above, none below
LOW = (0.0, 2.2)  # lam: the factor for low noise is none above, whole below
LEAST = 2e-4  # least step in sigma
APART = 0.5  # least number of steps between two switches, and from a switch to an end


class Places:
    """Grids of as many steps as a given one, each named by numbers; zeros name the given one.

    - For each switch, by what part of a step later it is crossed: what the end depends on most,
      so it has a number of its own.
    - For each switch, how many more steps lie above it.
    - By how much the logarithm of the last sigma before 0 is raised.
    - The logarithm of a factor of the density of steps at high noise, and of one at low noise.

    So that each number does one thing, the steps above a switch are the same whatever the others
    are. Where there is no switch, the factors share steps between high and low noise.

    Args:
        grid: From the first sigma to 0, at least four steps.
        boundaries: Sigmas of the switches, descending.

    Attributes:
        moves: A first move of each number, large enough to matter, the likelier way.
        least: The smallest move of each; steps above a switch move as wholes.
    """

    def __init__(self, grid: Sequence[float], boundaries: Sequence[float]) -> None:
        import numpy as np

        self._base, self.steps = list(grid), len(grid) - 1
        self._nodes = np.array([theta(s) for s in grid[:-1]])
        self.boundaries = [b for b in boundaries if grid[-2] < b < grid[0]]
        switches = len(self.boundaries)
        self.moves = [*[0.15] * switches, *[1.0] * switches, -0.45, -0.5, -0.5]
        self.least = [*[0.005] * switches, *[1.0] * switches, 0.02, 0.02, 0.02]
        self._above = [float(np.interp(theta(b), *self._counted())) for b in self.boundaries]

    def _counted(self) -> tuple[Vector, Vector]:
        import numpy as np

        return self._nodes, np.arange(self.steps, dtype=float)

    def grid(self, numbers: Sequence[float]) -> list[float] | None:
        """Sigmas from the first to 0; None where two would coincide."""
        import numpy as np

        if not any(numbers):
            return self._base
        raised, high, low = numbers[-3:]
        last = self._base[-2] * math.exp(raised)
        if last >= min([*self.boundaries, self._base[0]]):
            return None
        angles = np.linspace(self._nodes[0], theta(last), POINTS + 1)
        middles = (angles[1:] + angles[:-1]) / 2
        place = np.clip(np.searchsorted(self._nodes, middles, "right"), 1, self.steps - 1)
        values = 1.0 / (self._nodes[place] - self._nodes[place - 1])  # steps per angle
        values *= np.array([_factor(angle, low, high) for angle in middles.tolist()])
        areas = np.concatenate([[0.0], np.cumsum(values)])
        areas *= (self.steps - 1) / areas[-1]
        if self.boundaries:
            natural = [float(np.interp(theta(b), angles, areas)) for b in self.boundaries]
            parts, wholes = numbers[: len(natural)], numbers[len(natural) : -3]
            wanted = [sum(n) for n in zip(self._above, parts, wholes, strict=True)]
            knots = [0.0, *wanted, self.steps - 1.0]
            if min(b - a for a, b in pairwise(knots)) < APART:
                return None
            areas = np.interp(areas, [0.0, *natural, self.steps - 1.0], knots)
        inner = np.interp(np.arange(1, self.steps), areas, angles)
        found = [self._base[0], *(round(sigma_of(float(a)), 6) for a in inner), 0.0]
        return found if min(a - b for a, b in pairwise(found)) >= LEAST else None


def _factor(angle: float, low: float, high: float) -> float:
    lam = math.log(max(math.tan(angle), 1e-12))
    down = min(max((lam - HIGH[0]) / (HIGH[1] - HIGH[0]), 0.0), 1.0)
    up = min(max((lam - LOW[0]) / (LOW[1] - LOW[0]), 0.0), 1.0)
    return math.exp(high * (1.0 - down) + low * up)
