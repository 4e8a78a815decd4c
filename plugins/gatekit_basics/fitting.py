"""A whole run's error, predicted from one fine trajectory; and the grid that makes it least.

Along the flow of a model, z = x/s and y = alpha/s, dz/dy = D. A linear multistep method takes
sums of values of D instead of the integral. Given D on a fine trajectory, what it errs by on ANY
grid is a linear combination of these values, and its norm follows from their Gram matrix alone: no
model is evaluated. How the model answers to an error dx in its state is modelled by a number,

    dD = kappa(s)/alpha(s) dx,

since D keeps what the state already shows: x = alpha D + s n, so an error that is a displaced
target has dD = dx/alpha, and one that is noise to the model has dD = 0. Where steps are so long
that the answer is not linear, the prediction is worth little: at 12 evaluations and fewer.

The method is the one of ``structure`` and ``polish``: predictor and corrector of p = 2 along
theta, each boundary crossed with history carried, the last interval taken by ``polish``. A jump of
the field at a boundary is part of D, so the grid is placed for it too: a jump costs least in the
middle of a step, where the corrector weighs both sides alike.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.curvature import sigma_of, theta

if TYPE_CHECKING:
    import numpy as np

    Vector = np.ndarray[Any, np.dtype[np.float64]]
    _Along = tuple[list[Vector], list[Vector], list[tuple[list[float], list[float]]]]

# lam -> the share kappa of a state's error that the prediction follows; linear between. Measured on
# runs of the small model (20 evaluations, guidance 3) from their distance to the converged flow.
FOLLOWED = ((-6.0, 0.2), (-4.6, 0.45), (-3.5, 0.65), (-2.2, 0.85), (-1.8, 0.9))
# The model's answer is no one number: errors that cancel only for one of them do not cancel.
ANSWERS = (0.4, 0.7, 1.0, 1.1)
TERMINAL, SETTLED = 0.4, 1.0  # polish's ``terminal`` and ``settle``
ROUGH = 2e-4  # weight of the roughness of steps, in units of the relative error
LEAST = 2e-4  # least step in sigma


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


def followed(sigma: float) -> float:
    """kappa/alpha: how far D moves by an error in the state."""
    if sigma >= 1.0:
        return 0.0
    lam = math.log((1.0 - sigma) / sigma)
    (left, share) = FOLLOWED[0]
    for right, value in FOLLOWED:
        if lam <= right:
            part = (lam - left) / (right - left) if right > left else 1.0
            share += (value - share) * max(part, 0.0)
            break
        left, share = right, value
    return share / (1.0 - sigma)


def predicted_error(travelled: Travelled, grid: Sequence[float]) -> float:
    """Relative error of the end of a run over ``grid`` (from its first sigma to 0).

    The root mean square over ANSWERS of what a linear answer makes of it.
    """
    squares = [_linear(travelled, grid, answer) ** 2 for answer in ANSWERS]
    return math.sqrt(sum(squares) / len(squares))


def _linear(travelled: Travelled, grid: Sequence[float], answer: float) -> float:
    """The error of a run to whose states the model answers with answer kappa/alpha.

    With e the error of the state before, f after the correction, g that of D,

        g_n = answer kappa/alpha e_n,
        f_n = s_n/s_{n-1} f_{n-1} + s_n (sum_j w_j (D_j + g_j) - integral of D dy),

    w_j the corrector's weights over (n, n-1, n-2); e_{n+1} likewise from f_n with the predictor's
    over (n, n-1).
    """
    last = len(grid) - 2
    exact, sums, rules = travelled.along(tuple(grid))
    values: list[Vector] = []  # D and its error
    before = after = 0.0 * sums[0]
    for n, (predictor, corrector) in enumerate(rules):
        sigma = grid[n]
        values.append(exact[n] + answer * followed(sigma) * before)
        if n > 0:
            moved = _sum(corrector, values[-1:-4:-1]) - (sums[n] - sums[n - 1])
            after = after * (sigma / grid[n - 1]) + sigma * moved
        if n < last:
            moved = _sum(predictor, values[-1:-3:-1]) - (sums[n + 1] - sums[n])
            before = after * (grid[n + 1] / sigma) + grid[n + 1] * moved
    end = values[-1] - exact[-1]
    if last > 0 and grid[last] <= TERMINAL:
        end = end + SETTLED * (after - before)
        ratio = grid[last] ** 2 / (grid[last - 1] ** 2 - grid[last] ** 2)
        end = end + ratio * (values[-1] - values[-2])
    return travelled.size(end)


def _sum(weights: Sequence[float], values: Sequence[Vector]) -> Vector:
    total = weights[0] * values[0]
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + weight * value
    return total


def _weights(nodes: Sequence[float], above: float, below: float) -> list[float]:
    """Of an integral over dy of the interpolant in theta through ``nodes``."""
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


def fit(travelled: Travelled, grid: Sequence[float], evaluations: int = 2000) -> list[float]:
    """The grid of as many steps as ``grid`` with the least predicted error, searched from it.

    The logarithms of the steps in theta are free; their roughness costs a little, so that
    neighbours of no consequence do not jump about. Gradients first (L-BFGS-B), then line by
    line (Powell).

    Args:
        travelled: A fine trajectory.
        grid: Where to begin, from the trajectory's first sigma to 0.
        evaluations: Of the predicted error, at most about one and a half times as many.

    Returns:
        The better of what was found and ``grid``.

    Raises:
        InputError: scipy is not installed.
    """
    import numpy as np

    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise gatekit.InputError(
            "fitting needs scipy", value=str(error), remedy=gatekit.install_extra("fit")
        ) from error

    first = theta(grid[0])

    def placed(logs: Vector) -> list[float]:
        steps = np.exp(logs - logs.max())
        angles = first + (math.pi / 2 - first) * np.cumsum(steps) / steps.sum()
        return [grid[0], *(sigma_of(float(a)) for a in angles[:-1]), 0.0]

    def cost(logs: Vector) -> float:
        sigmas = placed(logs)
        if min(a - b for a, b in pairwise(sigmas)) < LEAST:
            return 1.0
        return predicted_error(travelled, sigmas) + ROUGH * float(np.square(np.diff(logs)).sum())

    angles = [*(theta(s) for s in grid[:-1]), math.pi / 2]
    logs = np.log(np.diff(np.asarray(angles)))
    options = {"maxfun": evaluations, "eps": 1e-3}
    logs = minimize(cost, logs, method="L-BFGS-B", options=options).x  # pyright: ignore
    logs = minimize(cost, logs, method="Powell", options={"maxfev": evaluations // 2}).x  # pyright: ignore
    found = placed(logs)
    better = predicted_error(travelled, found) < predicted_error(travelled, grid)
    return found if better else list(grid)
