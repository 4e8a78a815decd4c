"""Comparisons that hold: paired differences, bootstrap and tests clustered by prompt.

Results of one prompt are alike, so prompts are drawn, not results: G prompts are G pieces of
evidence, however many seeds each has.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gatekit_research.student import quantile

RESAMPLES = 10_000
EXACT = 14  # clusters up to which every pattern of signs is tried
FEW = 10  # clusters below which intervals and tests are weak


@dataclass(frozen=True)
class Paired:
    """Differences of one arm to another, over the keys that both have.

    Attributes:
        values: One difference a key.
        clusters: The cluster (prompt) of each.
    """

    values: tuple[float, ...]
    clusters: tuple[Hashable, ...]

    @property
    def mean(self) -> float:
        """Mean difference; NaN without any."""
        return sum(self.values) / len(self.values) if self.values else math.nan

    @property
    def groups(self) -> int:
        """Number of clusters."""
        return len(set(self.clusters))


def paired(
    one: Mapping[tuple[Hashable, Hashable], float], other: Mapping[tuple[Hashable, Hashable], float]
) -> Paired:
    """``one - other`` over common keys (prompt, seed)."""
    keys = [key for key in one if key in other]
    return Paired(tuple(one[k] - other[k] for k in keys), tuple(k[0] for k in keys))


def gathered(values: Sequence[float], clusters: Sequence[Hashable]) -> Any:
    """Values as an array ``[clusters, most in one]``, NaN where one has fewer."""
    import numpy

    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    table: Any = numpy.full((len(groups), max(map(len, groups.values()))), numpy.nan)
    for i, row in enumerate(groups.values()):
        table[i, : len(row)] = row
    return table


def bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    level: float = 0.95,
    method: Literal["percentile", "bca"] = "percentile",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of the mean, whole clusters drawn with replacement.

    ``percentile`` is the expanded percentile interval (Hesterberg 2015): levels by Student's t
    times sqrt(G / (G - 1)), without which few clusters give intervals that are too short.
    ``bca`` is Efron's (1987) bias-corrected and accelerated one, its acceleration by jackknife.

    Args:
        values: One a result.
        clusters: The cluster of each.
        level: Of confidence.
        method: How quantiles become ends.
        resamples: Draws.
        seed: Of the draws.

    Returns:
        Both ends; NaN where there are fewer than two clusters.
    """
    import numpy

    if len(set(clusters)) < 2:
        return math.nan, math.nan
    table = gathered(values, clusters)
    sums, counts = numpy.nansum(table, 1), numpy.isfinite(table).sum(1)
    size = len(table)
    draw = numpy.random.default_rng(seed).integers(0, size, (resamples, size))
    means = sums[draw].sum(1) / counts[draw].sum(1)
    if method == "bca":
        low, high = _accelerated(sums, counts, means, level)
    else:
        low, high = _expanded(size, level)
    return float(numpy.quantile(means, low)), float(numpy.quantile(means, high))


def _expanded(groups: int, level: float) -> tuple[float, float]:
    from statistics import NormalDist

    reach = math.sqrt(groups / (groups - 1)) * quantile((1.0 + level) / 2.0, groups - 1)
    tail = NormalDist().cdf(-reach)
    return tail, 1.0 - tail


def _accelerated(sums: Any, counts: Any, means: Any, level: float) -> tuple[float, float]:
    from statistics import NormalDist

    normal, whole = NormalDist(), sums.sum() / counts.sum()
    share = float((means < whole).mean() + 0.5 * (means == whole).mean())
    bias = normal.inv_cdf(min(max(share, 1e-6), 1 - 1e-6))
    without = (sums.sum() - sums) / (counts.sum() - counts)
    apart = without.mean() - without
    spread = float((apart**2).sum())
    bend = float((apart**3).sum()) / (6.0 * spread**1.5) if spread > 0 else 0.0
    ends: list[float] = []
    for p in ((1.0 - level) / 2.0, (1.0 + level) / 2.0):
        z = bias + normal.inv_cdf(p)
        ends.append(normal.cdf(bias + z / (1.0 - bend * z)))
    return ends[0], ends[1]


def sign_flip_test(
    values: Sequence[float], clusters: Sequence[Hashable], *, draws: int = 20_000, seed: int = 0
) -> float:
    """Two-sided p that the differences lie around 0: signs of whole clusters are flipped.

    All patterns up to ``EXACT`` clusters, else ``draws`` random ones and the one seen. With one
    result a prompt and differences of -1, 0, 1 it is the exact McNemar test.
    """
    import numpy

    if not values:
        return math.nan
    table = gathered(values, clusters)
    sums = numpy.nansum(table, 1)
    sums = sums[sums != 0]  # a cluster without difference says nothing in either direction
    size = len(sums)
    if size == 0:
        return 1.0
    seen = abs(sums.sum()) * (1.0 - 1e-12)
    if size <= EXACT:
        bits = (numpy.arange(1 << size)[:, None] >> numpy.arange(size)) & 1
        return float((abs((1 - 2 * bits) @ sums) >= seen).mean())
    signs = numpy.random.default_rng(seed).integers(0, 2, (draws, size)) * 2 - 1
    return float((1 + (abs(signs @ sums) >= seen).sum()) / (draws + 1))


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided McNemar test of flips: binomial with 1/2 over the discordant pairs."""
    n, least = gained + lost, min(gained, lost)
    tail = sum(math.comb(n, k) for k in range(least + 1)) / 2**n
    return min(1.0, 2.0 * tail)


def sign_test(values: Sequence[float]) -> float:
    """Exact two-sided sign test; values of 0 are left out."""
    return mcnemar(sum(v > 0 for v in values), sum(v < 0 for v in values))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction, in the order given; NaN stays and counts for nothing."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    found, most = [math.nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        most = max(most, min(1.0, (len(known) - rank) * p))
        found[i] = most
    return found


def smallest_effect(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """The least mean difference that so many clusters would find with ``power``.

    (t_(1 - alpha/2) + t_power) SE, both of Student's t with G - 1 degrees of freedom and SE the
    cluster-robust standard error of the mean. NaN for fewer than two clusters, and where all
    differences are equal: nothing then tells how they vary.
    """
    import numpy

    groups = len(set(clusters))
    if groups < 2:
        return math.nan
    table = gathered(values, clusters)
    counts = numpy.isfinite(table).sum(1)
    apart = numpy.nansum(table, 1) - counts * float(numpy.nansum(table) / counts.sum())
    error = math.sqrt(groups / (groups - 1) * float((apart**2).sum())) / float(counts.sum())
    df = groups - 1
    if error == 0.0:
        return math.nan
    return (quantile((1.0 + level) / 2.0, df) + quantile(power, df)) * error
