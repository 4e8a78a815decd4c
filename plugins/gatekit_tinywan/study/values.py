"""Statistics of stored values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

from gatekit_tinywan.study.store import Row

FLIP = 0.25  # relative error above which a sample counts as another video


@dataclass(frozen=True)
class Share:
    """A mean of 0 and 1, or of their paired differences, and its standard error."""

    mean: float
    error: float


@dataclass(frozen=True)
class Errors:
    """Relative errors of the samples of one cell.

    Attributes:
        mean: Over samples.
        median: Of the samples.
        flips: Share of samples above ``FLIP``.
        count: Samples.
    """

    mean: float
    median: float
    flips: float
    count: int


def errors(values: Sequence[float]) -> Errors:
    """Of relative errors."""
    flips = fmean(v > FLIP for v in values)
    return Errors(fmean(values), median(values), flips, len(values))


def mean_of(values: Sequence[float]) -> Share:
    """Mean and its standard error."""
    spread = stdev(values) if len(values) > 1 else math.nan
    return Share(fmean(values), spread / math.sqrt(len(values)))


def right(rows: Mapping[int, Row]) -> dict[int, float]:
    """Row -> 1 where the judge found everything right; judged rows only."""
    return {i: float("0" not in row["right"]) for i, row in rows.items() if row.get("right")}


def difference(one: Mapping[int, float], other: Mapping[int, float]) -> Share | None:
    """Paired over the rows that both have; None without any."""
    both = sorted(set(one) & set(other))
    return mean_of([one[i] - other[i] for i in both]) if both else None


def changed(rows: Mapping[int, Row], verdicts: Mapping[int, str]) -> float | None:
    """Share of samples in which an attribute is right here and wrong in the reference, or so."""
    both = [i for i in rows if rows[i].get("right") and verdicts.get(i)]
    return fmean(rows[i]["right"] != verdicts[i] for i in both) if both else None
