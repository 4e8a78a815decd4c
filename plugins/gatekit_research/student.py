"""Quantiles of Student's t, so that few clusters are not taken for many."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

MANY = 400  # degrees of freedom from which on the normal distribution does


def density(x: float, df: int) -> float:
    """Of t with ``df`` degrees of freedom."""
    log = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    return math.exp(log - (df + 1) / 2 * math.log1p(x * x / df))


def distribution(x: float, df: int, pieces: int = 400) -> float:
    """P(T <= x), by Simpson's rule in the angle atan(x / sqrt(df))."""
    root = math.sqrt(df)
    end = math.atan(abs(x) / root)
    step = end / pieces

    def at(angle: float) -> float:
        return density(root * math.tan(angle), df) * root / math.cos(angle) ** 2

    inner = sum((4 if i % 2 else 2) * at(i * step) for i in range(1, pieces))
    half = step / 3.0 * (at(0.0) + inner + at(end)) if end > 0 else 0.0
    return 0.5 + math.copysign(half, x)


@lru_cache(maxsize=256)
def quantile(p: float, df: int) -> float:
    """X with P(T <= x) = p.

    Args:
        p: In (0, 1).
        df: Degrees of freedom, at least 1.
    """
    if df >= MANY:
        return NormalDist().inv_cdf(p)
    if p < 0.5:
        return -quantile(1.0 - p, df)
    low, high = 0.0, 1.0
    while distribution(high, df) < p:
        high *= 2.0
    for _ in range(60):
        middle = (low + high) / 2.0
        low, high = (middle, high) if distribution(middle, df) < p else (low, middle)
    return (low + high) / 2.0
