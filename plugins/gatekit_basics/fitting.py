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
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.curvature import sigma_of, theta
from gatekit_basics.travelled import Travelled

if TYPE_CHECKING:
    from gatekit_basics.travelled import Vector

# lam -> the share kappa of a state's error that the prediction follows; linear between. Measured on
# runs of an earlier revision of the small model (20 evaluations, guidance 3) from their distance to
# the converged flow.
FOLLOWED = ((-6.0, 0.2), (-4.6, 0.45), (-3.5, 0.65), (-2.2, 0.85), (-1.8, 0.9))
# The model's answer is no one number: errors that cancel only for one of them do not cancel.
ANSWERS = (0.4, 0.7, 1.0, 1.1)
TERMINAL, SETTLED = 0.4, 1.0  # polish's ``terminal`` and ``settle``
ROUGH = 2e-4  # weight of the roughness of steps, in units of the relative error
LEAST = 2e-4  # least step in sigma


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


def minimizer() -> Any:
    """Scipy's. Raises InputError where it is not installed: ask before a fine run is made."""
    try:
        from scipy.optimize import minimize
    except ImportError as error:
        raise gatekit.InputError(
            "fitting needs scipy", value=str(error), remedy=gatekit.install_extra("fit")
        ) from error
    return minimize


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

    minimize = minimizer()
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
    logs = minimize(cost, logs, method="L-BFGS-B", options=options).x
    logs = minimize(cost, logs, method="Powell", options={"maxfev": evaluations // 2}).x
    found = placed(logs)
    better = predicted_error(travelled, found) < predicted_error(travelled, grid)
    return found if better else list(grid)
