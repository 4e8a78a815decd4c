"""Grids chosen by running them: the end nearest to that of a fine run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gatekit_basics.placing import Places

if TYPE_CHECKING:
    from torch import Tensor

Ends = Callable[[list[float]], "Tensor | None"]
SMALLEST = 1 / 8  # of the first moves: where the search stops


def error_of(ends: Tensor | None, truth: Tensor) -> float:
    """Geometric mean over prompts of |x - r|/|r|; infinite for a run that failed.

    Of the logarithm, since errors of prompts differ by ten times and more: the worst prompt alone
    would decide a root mean square, and its grid fits nobody else's.

    Args:
        ends: ``[B, n]`` of a run; None if there are none.
        truth: ``[B, n]`` of the fine run.
    """
    if ends is None or not bool(ends.isfinite().all()):
        return math.inf
    relative = (ends.double() - truth.double()).norm(dim=1) / truth.double().norm(dim=1)
    return float(relative.clamp_min(1e-12).log().mean().exp())


class Trial:
    """Runs grids and remembers what they err by.

    Args:
        ends: Runs a grid: its ends ``[B, n]``, or None where it failed.
        truth: Ends of the fine run.
        runs: How many may be made.

    Attributes:
        tried: (error, grid), in the order in which they were run.
    """

    def __init__(self, ends: Ends, truth: Tensor, runs: int) -> None:
        self._ends, self._truth, self.left = ends, truth, runs
        self.tried: list[tuple[float, list[float]]] = []
        self._known: dict[tuple[float, ...], float] = {}

    def __call__(self, grid: list[float] | None) -> float:
        """The error of a grid: infinite for none, and where no runs are left."""
        if grid is None:
            return math.inf
        key = tuple(round(sigma, 6) for sigma in grid)
        if key not in self._known:
            if self.left < 1:
                return math.inf
            self.left -= 1
            self._known[key] = error_of(self._ends(list(key)), self._truth)
            self.tried.append((self._known[key], list(key)))
        return self._known[key]

    @property
    def best(self) -> tuple[float, list[float]]:
        """The least error and its grid; the first of equals."""
        return min(self.tried, key=lambda pair: pair[0])


def search(trial: Trial, places: Places) -> None:
    """Compass search over the numbers of ``places`` until ``trial`` has no runs left.

    One number after another is moved, first the way that seems better; where neither way helps,
    its move is halved (Hooke and Jeeves, J. ACM 8 (1961) 212, with a length for each number and
    without pattern moves: runs are dear).
    """
    best, lengths = [0.0] * len(places.moves), list(places.moves)
    ways = [-1.0] * len(lengths)
    least = trial(places.grid(best))
    while trial.left > 0:
        alive = [i for i, move in enumerate(places.moves) if lengths[i] >= SMALLEST * move]
        if not alive:
            return
        for i in alive:
            errors: dict[float, float] = {}
            for way in (ways[i], -ways[i]):
                numbers = [*best[:i], best[i] + way * lengths[i], *best[i + 1 :]]
                errors[way] = trial(places.grid(numbers))
                if errors[way] < least:
                    best, least = numbers, errors[way]
                    break
            else:
                lengths[i] /= 2
            ways[i] = min(errors, key=lambda way: errors[way])


def tried(
    candidates: Sequence[list[float]],
    boundaries: Sequence[float],
    ends: Ends,
    truth: Tensor,
    runs: int,
) -> list[tuple[float, list[float]]]:
    """Run the candidates, then what is searched from the best of them on.

    Args:
        candidates: Grids of one number of steps; at least one.
        boundaries: Sigmas below which another field predicts.
        ends: Runs a grid.
        truth: Ends of the fine run, ``[B, n]``.
        runs: How many grids may be run, at least 1.

    Returns:
        (error, grid), best first.
    """
    trial = Trial(ends, truth, runs)
    for grid in candidates:
        trial(grid)
    if len(candidates[0]) > 4:
        search(trial, Places(trial.best[1], boundaries))
    return sorted(trial.tried, key=lambda pair: pair[0])
