"""Every choice of boundaries and variants that no other beats, by dynamic programming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekit_research.propose.problem import Option, Problem, Proposal, proposal

if TYPE_CHECKING:
    import numpy as np

ROUND = 12  # digits within which two sums count as one
State = tuple[str, int]  # the variant that serves last, and the switches so far
Starts = tuple[tuple[int, str], ...]  # (first step, variant) of each piece


@dataclass(frozen=True)
class _Labels:
    """Choices for the first steps that end in one state.

    Attributes:
        sums: ``[labels, 1 + dimensions]``: objective, then what else was asked for.
        counts: ``[labels]``: phases of each.
        starts: Their pieces.
    """

    sums: np.ndarray
    counts: np.ndarray
    starts: list[Starts]


def pareto(
    problem: Problem, phases: int, limits: Mapping[str, float], axes: Sequence[str] = ()
) -> list[Proposal]:
    """Proposals within the limits, none of which another beats in objective, limits and axes.

    Choices are extended a step at a time: the same variant goes on, or another takes over. Of two
    that end alike, with the same switches, one that is nowhere better is dropped; all sums only
    grow, so what remains holds every proposal that is best in something.

    Args:
        problem: Options by step.
        phases: Most phases; a stretch's border always begins one.
        limits: By ``bits``, ``seconds``, ``error``, ``vram``, ``switches``; at most so much.
        axes: Further quantities of ``bits``, ``seconds``, ``error`` to be good in.

    Returns:
        The lowest objective first.
    """
    import numpy as np

    limits = dict(limits)
    allowed = problem.within(limits.pop("vram", None))
    most = limits.pop("switches", float("inf"))
    dimensions = [n for n in ("bits", "seconds", "error") if n in limits or n in axes]
    bounds = np.array([np.inf, *(limits.get(n, np.inf) * (1 + 1e-9) for n in dimensions)])
    borders = {start for start, _ in problem.stretches}

    def worth(option: Option) -> np.ndarray:
        return np.array([allowed.objective(option), *(getattr(option, n) for n in dimensions)])

    nothing = _Labels(np.zeros((1, 1 + len(dimensions))), np.zeros(1, dtype=int), [()])
    states: dict[State, _Labels] = {("", 0): nothing}
    for i, options in enumerate(allowed.options):
        grown: dict[State, list[_Labels]] = {}
        for (last, switches), labels in states.items():
            for key, option in options.items():
                same = key == last and i not in borders
                turns = switches + (last not in ("", key))
                if turns > most:
                    continue
                sums, counts = labels.sums + worth(option), labels.counts + (not same)
                kept = np.flatnonzero((counts <= phases) & (sums <= bounds).all(axis=1))
                begun: Starts = () if same else ((i, key),)
                starts = [labels.starts[j] + begun for j in kept]
                more = _Labels(sums[kept], counts[kept], starts)
                grown.setdefault((key, turns), []).append(more)
        states = {state: undominated(_joined(parts)) for state, parts in grown.items()}
        states = {state: labels for state, labels in states.items() if labels.starts}
    if not states:
        return []
    every = _joined(list(states.values()))
    ends = undominated(_Labels(every.sums, np.zeros_like(every.counts), every.starts))
    return [proposal(problem, _pieces(starts, len(problem.options))) for starts in ends.starts]


def _joined(parts: Sequence[_Labels]) -> _Labels:
    import numpy as np

    return _Labels(
        np.concatenate([part.sums for part in parts]),
        np.concatenate([part.counts for part in parts]),
        [starts for part in parts for starts in part.starts],
    )


def undominated(labels: _Labels) -> _Labels:
    """Those that no other beats; to have begun fewer phases is better, as more may come."""
    import numpy as np

    worth = np.column_stack([labels.sums.round(ROUND), labels.counts])
    order = np.lexsort(worth.T[::-1])  # by objective first: what comes later beats none before
    kept: list[int] = []
    while len(order):
        first = order[0]
        kept.append(int(first))
        order = order[(worth[order] < worth[first]).any(axis=1)]
    return _Labels(labels.sums[kept], labels.counts[kept], [labels.starts[j] for j in kept])


def _pieces(starts: Starts, steps: int) -> list[tuple[int, int, str]]:
    ends = [start for start, _ in starts[1:]] + [steps]
    return [(start, end, key) for (start, key), end in zip(starts, ends, strict=True)]
