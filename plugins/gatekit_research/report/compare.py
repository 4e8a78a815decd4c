"""Arms against their baselines, and against controls that took as much of something."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from gatekit_research import statistics
from gatekit_research.report.results import ArmResults, Results

SURE = 0.05  # p from which on a difference counts
# What a control is equal in, how nearly, and the key of a line that says it.
CONTROLS: tuple[tuple[str, str, float], ...] = (
    ("evaluations", "nfe", 0.0),
    ("bytes", "bits", 0.05),
    ("seconds", "seconds", 0.10),
    ("cost", "bytes", 0.05),
)


@dataclass(frozen=True)
class Difference:
    """A paired difference of two arms in one metric.

    Attributes:
        mean: Mean difference.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided, uncorrected.
        holm: Corrected over the arms of the metric; NaN where that is not asked.
        detectable: The least difference found with a power of 80 %.
        pairs: Pairs of cells.
        gained: Pairs that became 1, of values 0 and 1.
        lost: Pairs that became 0.
        better: Which way it went, where p is at most 0.05 and the interval without 0; else None.
    """

    mean: float
    low: float
    high: float
    p: float
    holm: float
    detectable: float
    pairs: int
    gained: int
    lost: int
    better: bool | None


@dataclass(frozen=True)
class Row:
    """One arm in one metric: mean and median of its cells, and the difference to its baseline."""

    arm: ArmResults
    mean: float
    median: float
    count: int
    baseline: str | None
    difference: Difference | None


def difference(
    results: Results, metric: str, arm: ArmResults, other: ArmResults, holm: float = math.nan
) -> Difference | None:
    """``arm - other`` over the prompts and seeds that both have; None without any."""
    one: dict[tuple[Hashable, Hashable], float] = {**arm.values(metric)}
    two: dict[tuple[Hashable, Hashable], float] = {**other.values(metric)}
    pair = statistics.paired(one, two)
    if not pair.values:
        return None
    low, high = statistics.bootstrap(pair.values, pair.clusters)
    p = statistics.sign_flip_test(pair.values, pair.clusters)
    upwards = results.metric(metric)["higher_is_better"]
    better = (low > 0) == upwards if (low > 0 or high < 0) and p <= SURE else None
    return Difference(
        mean=pair.mean,
        low=low,
        high=high,
        p=p,
        holm=holm,
        detectable=statistics.smallest_effect(pair.values, pair.clusters),
        pairs=len(pair.values),
        gained=sum(v > 0 for v in pair.values),
        lost=sum(v < 0 for v in pair.values),
        better=better,
    )


def rows(results: Results, metric: str) -> list[Row]:
    """Every arm that has values; Holm's correction is over the arms of this metric."""
    plain: list[Row] = []
    for arm in results.arms:
        values = list(arm.values(metric).values())
        if not values:
            continue
        base = results.arm(arm.about["baseline"])
        found = difference(results, metric, arm, base) if base is not None else None
        name = base.name if base is not None else None
        plain.append(Row(arm, fmean(values), median(values), len(values), name, found))
    tested = [row for row in plain if row.difference is not None]
    corrected = statistics.holm([row.difference.p for row in tested if row.difference])
    by_name = {row.arm.name: p for row, p in zip(tested, corrected, strict=True)}
    return [_with_holm(row, by_name.get(row.arm.name, math.nan)) for row in plain]


def _with_holm(row: Row, p: float) -> Row:
    if row.difference is None:
        return row
    better = row.difference.better if p <= SURE else None
    return replace(row, difference=replace(row.difference, holm=p, better=better))


@dataclass(frozen=True)
class Control:
    """An arm that took as much of something, and the difference to it; or that there is none."""

    kind: str
    name: str | None
    difference: Difference | None


def controls(results: Results, metric: str, arm: ArmResults) -> list[Control]:
    """For each kind: every other arm that is equal in it; one entry without a name where none."""
    found: list[Control] = []
    for kind, key, near in CONTROLS:
        same = [
            other for other in results.arms if other is not arm and _equal(arm, other, key, near)
        ]
        found += [Control(kind, o.name, difference(results, metric, arm, o)) for o in same]
        if not same:
            found.append(Control(kind, None, None))
    return found


def _equal(arm: ArmResults, other: ArmResults, key: str, near: float) -> bool:
    one, two = arm.mean(key), other.mean(key)
    if one is None or two is None:
        return False
    return abs(one - two) <= near * max(abs(one), abs(two)) + 1e-9


def pareto(points: Sequence[tuple[float, float]], higher: bool) -> list[tuple[float, float]]:
    """Points that no other beats in both, by rising cost: (cost, value)."""
    best: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (p[0], -p[1] if higher else p[1])):
        if not best or (value > best[-1][1] if higher else value < best[-1][1]):
            best.append((cost, value))
    return best
