"""Grids chosen by running them: the end nearest to that of a fine run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gatekit_basics.placing import Places

if TYPE_CHECKING:
    from torch import Tensor

Ends = Callable[[list[float]], "Tensor | None"]


def error_of(ends: Tensor | None, truth: Tensor) -> float:
    """Of |x - r|/|r| over prompts the mean of power 1/2; infinite for a run that failed.

    Errors of prompts differ by ten times and more: in a root mean square the worst prompt alone
    would decide, and its grid fits nobody else's; in a geometric mean no prompt is ever lost.

    Args:
        ends: ``[B, n]`` of a run; None if there are none.
        truth: ``[B, n]`` of the fine run.
    """
    if ends is None or not bool(ends.isfinite().all()):
        return math.inf
    relative = (ends.double() - truth.double()).norm(dim=1) / truth.double().norm(dim=1)
    return float(relative.sqrt().mean() ** 2)


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


class Compass:
    """Compass search over the numbers of ``places``.

    One number after another is moved, first the way that seems better; where neither way helps,
    its move becomes that to the vertex of the parabola through the three squares of the error
    (Hooke and Jeeves, J. ACM 8 (1961) 212, with a length for each number and without pattern
    moves: runs are dear). Near the least error its square is a parabola, however sharp.

    Args:
        trial: Runs grids.
        places: Grids; the one of zeros is begun with.
    """

    def __init__(self, trial: Trial, places: Places) -> None:
        self._trial, self._places = trial, places
        self._best, self._lengths = [0.0] * len(places.moves), list(places.moves)

    def search(self, leave: int = 0) -> None:
        """Until ``leave`` runs are left, or no move is long enough; again goes on from there."""
        trial, lengths = self._trial, self._lengths
        least = trial(self._places.grid(self._best))
        while True:
            pairs = enumerate(zip(lengths, self._places.least, strict=True))
            alive = [i for i, (length, smallest) in pairs if abs(length) >= smallest]
            if not alive:
                return
            for i in alive:
                errors: list[float] = []
                for move in (lengths[i], -lengths[i]):
                    if trial.left <= leave:
                        return
                    numbers = [*self._best[:i], self._best[i] + move, *self._best[i + 1 :]]
                    errors.append(trial(self._places.grid(numbers)))
                    if errors[-1] < least:
                        self._best, least, lengths[i] = numbers, errors[-1], move
                        break
                else:
                    lengths[i] *= _vertex(errors[0], least, errors[1])


def _vertex(ahead: float, here: float, behind: float) -> float:
    """Where the parabola through three squares at 1, 0, -1 is least, a quarter away at least."""
    if not math.isfinite(ahead + behind):
        return 0.5 if ahead <= behind else -0.5
    bend = ahead**2 + behind**2 - 2 * here**2
    place = (behind**2 - ahead**2) / (2 * bend) if bend > 0 else 0.0
    return math.copysign(max(abs(place), 0.25), behind - ahead)


def tried(
    smooth: Sequence[list[float]],
    others: Sequence[list[float]],
    boundaries: Sequence[float],
    ends: Ends,
    truth: Tensor,
    runs: int,
) -> list[tuple[float, list[float]]]:
    """Run some grids, then what is searched from the best smooth one on.

    With half of the runs: a fitted grid may lie at the bottom of a valley that is not the deepest.
    Where one of the others is still the best then, what is left goes on from there.

    Args:
        smooth: Grids of one number of steps; at least one.
        others: More, of as many steps: fitted, or what there was before.
        boundaries: Sigmas below which another field predicts.
        ends: Runs a grid.
        truth: Ends of the fine run, ``[B, n]``.
        runs: How many grids may be run, at least 1.

    Returns:
        (error, grid), best first.
    """
    trial = Trial(ends, truth, runs)
    start = min(smooth, key=trial)
    for grid in others:
        trial(grid)
    if len(start) > 4:
        compass = Compass(trial, Places(start, boundaries))
        compass.search(leave=trial.left // 2)
        best = trial.best[0]
        better = next((grid for grid in others if trial(grid) == best), None)
        if better is not None:
            compass = Compass(trial, Places(better, boundaries))
        compass.search()
    return sorted(trial.tried, key=lambda pair: pair[0])
