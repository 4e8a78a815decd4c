"""A fine trajectory by the products of its predictions: values, integrals and rules along it."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gatekit_basics.curvature import theta

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float64]]
    _Along = tuple[list[Vector], list[Vector], list[tuple[list[float], list[float]]]]


@dataclass(frozen=True)
class Travelled:
    """One fine trajectory, without the trajectory.

    Attributes:
        sigmas: Where D was evaluated, descending from the run's first, the last close to 0.
        gram: ``[n, n]``, products of the D's, in units of the last one's square; a mean over
            samples.
        boundaries: Sigmas at which another field takes over, descending.
    """

    sigmas: tuple[float, ...]
    gram: Vector
    boundaries: tuple[float, ...] = ()

    @cached_property
    def _root(self) -> Vector:
        """R with R^T R = gram, so that |R c| is the norm of sum_i c_i D_i."""
        import numpy as np

        values, vectors = np.linalg.eigh(self.gram)
        return (vectors * np.sqrt(np.maximum(values, 0.0))).T

    @cached_property
    def _angles(self) -> tuple[float, ...]:
        return tuple(theta(s) for s in self.sigmas)

    @cached_property
    def _spans(self) -> list[tuple[int, int]]:
        """First and one past the last node of each field."""
        fields = [self.field(s) for s in self.sigmas]
        which = range(len(self.boundaries) + 1)
        return [(bisect_left(fields, f), bisect_right(fields, f)) for f in which]

    def size(self, coefficients: Vector) -> float:
        """Relative norm of sum_i c_i D_i."""
        import numpy as np

        return float(np.linalg.norm(self._root @ coefficients))

    def field(self, sigma: float) -> int:
        """Which field predicts in a step from ``sigma``: the one above down to its boundary."""
        return sum(sigma < b - 1e-6 for b in self.boundaries)

    def at(self, sigma: float, field: int) -> Vector:
        """Coefficients of D(sigma): a cubic in theta through the field's nearest four nodes."""
        import numpy as np

        first, end = self._spans[field]
        angles, angle = self._angles[first:end], theta(sigma)
        count = min(4, len(angles))
        low = min(max(0, bisect_left(angles, angle) - count // 2), len(angles) - count)
        near = angles[low : low + count]
        found = np.zeros(len(self.sigmas))
        for j, here in enumerate(near):
            found[first + low + j] = math.prod(
                (angle - other) / (here - other) for other in near if other != here
            )
        return found

    def along(self, grid: tuple[float, ...]) -> _Along:
        """Of a grid: D at its nodes and at the end, integrals, weights of predictors, correctors.

        The last one asked for is kept.
        """
        if self._kept and self._kept[0][0] == grid:
            return self._kept[0][1]
        nodes = grid[:-1]
        exact = [self.at(s, self.field(s)) for s in nodes]
        exact.append(self.at(self.sigmas[-1], len(self.boundaries)))
        rules: list[tuple[list[float], list[float]]] = []
        for n, sigma in enumerate(nodes):
            back = nodes[n::-1] if n else nodes[:1]
            ahead = nodes[n + 1] if n + 1 < len(nodes) else sigma
            predictor = _weights(back[:2], sigma, ahead)
            rules.append((predictor, _weights(back[:3], nodes[n - 1], sigma) if n else []))
        found = exact, [self.integral(s) for s in nodes], rules
        self._kept[:] = [(grid, found)]
        return found

    @cached_property
    def _kept(self) -> list[tuple[tuple[float, ...], _Along]]:
        return []

    @cached_property
    def _sums(self) -> list[Vector]:
        import numpy as np

        sums = [np.zeros(len(self.sigmas))]
        for above, below in pairwise(self.sigmas):
            sums.append(sums[-1] + self._between(above, below))
        return sums

    def integral(self, sigma: float) -> Vector:
        """Coefficients of the integral of D dy from the first sigma to ``sigma``."""
        i = max(bisect_right(self.sigmas, -sigma, key=lambda s: -s) - 1, 0)
        if self.sigmas[i] == sigma:
            return self._sums[i]
        return self._sums[i] + self._between(self.sigmas[i], sigma)

    def _between(self, above: float, below: float) -> Vector:
        """Gauss-Legendre over u = -log s, where dy = e^u du; a boundary inside splits it."""
        import numpy as np

        total = np.zeros(len(self.sigmas))
        inside = [b for b in self.boundaries if below < b < above]
        for a, b in pairwise([above, *inside, below]):
            start, end = -math.log(a), -math.log(b)
            field = self.field((a + b) / 2)
            for node, weight in zip(*_rule(4), strict=True):
                u = (start + end) / 2 + (end - start) / 2 * node
                total += weight * (end - start) / 2 * math.exp(u) * self.at(math.exp(-u), field)
        return total


def _weights(nodes: Sequence[float], above: float, below: float) -> list[float]:
    """Of an integral over dy of the interpolant in theta through ``nodes``.

    ``gatekit.multistep_weights`` times y' - y, by numpy: a fit asks for a hundred thousand, and a
    sampler's way, in plain Python so as to be quick once, is several times as slow.
    """
    import numpy as np

    points, weights = _rule(16)
    start, end = -math.log(above), -math.log(below)
    u = (start + end) / 2 + (end - start) / 2 * points
    s = np.exp(-u)
    share, angles = weights * (end - start) / 2 / s, np.arctan2(1.0 - s, s)
    places = [theta(node) for node in nodes]
    found: list[float] = []
    for place in places:
        basis = share
        for other in places:
            if other != place:
                basis = basis * ((angles - other) / (place - other))
        found.append(float(basis.sum()))
    return found


@cache
def _rule(points: int) -> tuple[Vector, Vector]:
    """Gauss-Legendre on [-1, 1]."""
    import numpy as np

    return np.polynomial.legendre.leggauss(points)
