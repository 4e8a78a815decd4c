"""Rows that need no run of their own: ``auto`` at any threshold, ``settle`` at any threshold.

Both decide for each sample alone here. In a run of several samples ``auto`` decides once for all,
and ``settle`` by the slowest: these rows are runs of one video each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from gatekit_tinywan.study.store import Row

AUTO = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SETTLE = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
Choice = dict[int, Row]


@dataclass(frozen=True)
class Chosen:
    """For every sample the run that was chosen.

    Attributes:
        rows: Sample -> its values.
        mean: Share carried, or mean step of the hand-over.
    """

    rows: Choice
    mean: float


def auto(threshold: float, carried: Mapping[int, Row], reset: Mapping[int, Row]) -> Chosen:
    """``auto`` over one switch: carried where rho is at most the threshold.

    Without rho (fewer than two past evaluations) it resets, as ``auto`` does.
    """
    both = sorted(set(carried) & set(reset))
    keeps = {i: _rho(carried[i], 0) <= threshold for i in both}
    rows = {i: carried[i] if keep else reset[i] for i, keep in keeps.items()}
    return Chosen(rows, fmean(keeps.values()))


def auto_twice(threshold: float, runs: Mapping[tuple[str, str], Mapping[int, Row]]) -> Chosen:
    """``auto`` over two switches; the second rho is that of the run the first decision led to."""
    both = sorted(set.intersection(*(set(rows) for rows in runs.values())))
    rows: Choice = {}
    shares: list[float] = []
    for i in both:
        names: list[str] = []
        for switch in range(2):
            so_far = runs[(*names, "carry", "carry")[:2]]  # pyright: ignore[reportArgumentType]
            keep = _rho(so_far[i], switch) <= threshold
            names.append("carry" if keep else "reset")
            shares.append(keep)
        rows[i] = runs[names[0], names[1]][i]
    return Chosen(rows, fmean(shares))


def best(runs: Sequence[Mapping[int, Row]], flow: str) -> Chosen:
    """The better run of every sample, as nobody could know before: what a rule could gain."""
    both = sorted(set.intersection(*(set(rows) for rows in runs)))
    choice = {i: min(range(len(runs)), key=lambda k: runs[k][i][flow]) for i in both}
    return Chosen(
        {i: runs[k][i] for i, k in choice.items()}, fmean(k == 0 for k in choice.values())
    )


def settle(threshold: float, runs: Mapping[int, Mapping[int, Row]]) -> Chosen:
    """``settle`` with ``min_steps: 2``: each sample's run with the hand-over it would choose.

    Args:
        threshold: Of the strategy.
        runs: Steps of the first phase -> sample -> values; the longest has the measure.
    """
    last = max(runs)
    both = sorted(set.intersection(*(set(rows) for rows in runs.values())))
    cuts = {
        i: next((k for k, left in runs[last][i]["settle"] if left <= threshold), last) for i in both
    }
    cuts = {i: k if k in runs else last for i, k in cuts.items()}
    return Chosen({i: runs[k][i] for i, k in cuts.items()}, fmean(cuts.values()))


def _rho(row: Row, switch: int) -> float:
    """Rho at a switch; infinite where the history was too short for one."""
    found = row.get("rho", [])
    rho = found[switch] if switch < len(found) else None
    return math.inf if rho is None else rho
