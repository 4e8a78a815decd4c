"""The beta grid, and the inverse of the incomplete beta function that it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from gatekit import GridParams, SigmaGrid
from gatekit_basics.grids import linear, shifted, unshifted


class BetaParams(GridParams):
    """Parameters of ``beta``.

    Attributes:
        alpha: First shape parameter.
        beta: Second shape parameter.
        shift: Applied after it, as for ``shifted_linear``.
    """

    alpha: float = Field(0.6, gt=0)
    beta: float = Field(0.6, gt=0)
    shift: float = Field(5.0, gt=0)


class Beta(SigmaGrid):
    """Quantiles of a beta distribution, shifted: dense at both ends.

    u_i = I^-1(1 - i/N; alpha, beta), then the shift. A stretch is even in the distribution
    function between its ends. Source: Lee et al., "Beta sampling is all you need",
    arXiv 2407.12173.
    """

    name = "beta"
    Params = BetaParams

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """Even in the distribution function."""
        p = self.params
        ends = [beta_cdf(unshifted(s, p.shift), p.alpha, p.beta) for s in (start, end)]
        places = linear(ends[0], ends[1], steps)
        return [shifted(beta_quantile(place, p.alpha, p.beta), p.shift) for place in places]


def beta_cdf(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x)) / a
    tail = 1.0
    for m in range(60, 0, -1):  # backwards: no division can meet 0 in this range of x
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        tail = 1.0 + even / (1.0 + odd / tail)
    return front / (1.0 - (a + b) * x / (a + 1.0) / tail)


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, by bisection to the last bit."""
    low, high = 0.0, 1.0
    if p in (low, high):
        return p
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if beta_cdf(middle, a, b) < p else (low, middle)
    return high
