"""What samplers with a history share: a step along the mean of past predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gatekit import (
    Evaluation,
    Linear,
    Sampler,
    StepContext,
    StepResult,
    evaluate,
    lazy,
    multistep_weights,
)

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit import Path

Density = Callable[[float], float]


def power(path: Path, eta: float) -> Density | None:
    """Density y^eta of the reverse SDE of strength eta, y = alpha/s; None where it is 1."""
    return None if eta == 0.0 else lambda sigma: (path.alpha(sigma) / sigma) ** eta


def columns(
    first: tuple[float, Tensor], past: Sequence[Evaluation]
) -> tuple[list[float], list[Tensor]]:
    """Sigmas and predictions: ``first``, then the past's, newest first."""
    return [first[0], *(p.sigma for p in past)], [first[1], *(p.denoised for p in past)]


def blend(weights: Sequence[float], values: Sequence[Tensor | Linear]) -> Linear:
    """sum_j a_j D_j."""
    return Linear(
        (weight * factor, tensor)
        for weight, value in zip(weights, values, strict=True)
        for factor, tensor in lazy(value).terms
    )


class ExponentialMultistep(Sampler):
    """The interpolant of the last p predictions, integrated exactly. One evaluation a step.

    x' = (s'/s) (y/y')^eta x + sum_j W_j D_j + s' sqrt(1 - (y/y')^(2 eta)) n, with y = alpha/s,
    computed as it reads: a transfer down to sigma_down with the mean prediction, then noise.

    A first step, without history, has order 1, and that bounds a run of p >= 3 to order 2. So
    there the first step, if it drew no noise, is redone once its end has been evaluated, with
    both predictions and from where it started. It costs no evaluation; the order becomes 3.

    A step much longer than those behind it extrapolates far, and multiplies every error of a
    prediction by sum_j |a_j| (3.7 over equal steps with p = 3). Above ``limit`` the oldest
    prediction is left out.

    Attributes:
        points: p, the predictions it uses.
        eta: Strength of the noise.
        limit: Largest sum_j |a_j|.
    """

    points: int = 2
    eta: float = 0.0
    limit: float = 16.0

    def strength(self, sigma: float) -> float:
        """Eta of the step that starts at ``sigma``."""
        return self.eta

    def density(self, path: Path, sigma: float) -> Density | None:
        """What weighs dy under the integral, in the step that starts at ``sigma``."""
        return power(path, self.strength(sigma))

    def down(self, c: StepContext) -> float:
        """Where the step goes before noise lifts it."""
        return c.sigma_down(self.strength(c.sigma), "sde")

    def choose(
        self, c: StepContext, denoised: Tensor
    ) -> tuple[tuple[Evaluation, ...], tuple[float, ...]]:
        """The predictions this step uses, and their weights.

        Fewer towards the end of the run, as in Wan's code, and where the step grows abruptly.
        """
        past = c.past[: min(self.points, c.steps_left) - 1]
        known = (Evaluation(c.sigma, c.x, denoised, ""), *past)
        while True:
            weights = self.weights(c.path, c.sigma, c.sigma_next, known)
            if sum(map(abs, weights)) <= self.limit:
                return known, weights
            known = known[:-1]

    def step(self, c: StepContext) -> StepResult:
        """Mean of the predictions, transfer, noise."""
        denoised = c.denoise(c.x, c.sigma)
        x, start, _ = self.advance(c, denoised)
        return StepResult(x, denoised, start=start)

    def advance(self, c: StepContext, denoised: Tensor) -> tuple[Tensor, Tensor | None, int]:
        """The next state, the one it left from, and how many predictions were used.

        With noise on top, nobody can use the state it left from: it is not computed then.
        """
        start, down = self.corrected(c, denoised), self.down(c)
        known, weights = self.choose(c, denoised)
        mean = self.mean(c.path, start, c.sigma, known, weights)
        ahead = c.renoise(c.transfer(lazy(start), mean, down), down)
        if down < c.sigma_next:
            return ahead.tensor(), None, len(known)
        x, start = evaluate(ahead, start)
        return x, start, len(known)

    def correct(self, c: StepContext, denoised: Tensor) -> Tensor:
        """As ``corrected``."""
        return evaluate(self.corrected(c, denoised))[0]

    def corrected(self, c: StepContext, denoised: Tensor) -> Tensor | Linear:
        """The first step redone with D at its end; c.x after any other."""
        first = c.past[0] if len(c.past) == 1 else None
        if self.points < 3 or first is None or first.start is None:
            return c.x
        if not math.isfinite(c.path.coordinate(self.params.coordinate, first.sigma)):
            return c.x  # one node is left: nothing to gain
        known = (Evaluation(c.sigma, c.x, denoised, ""), first)
        weights = self.weights(c.path, first.sigma, c.sigma, known)
        mean = self.mean(c.path, first.start, first.sigma, known, weights)
        return c.transfer(first.start, mean, c.sigma, start=first.sigma)

    def mean(
        self,
        path: Path,
        x: Tensor | Linear,
        sigma: float,
        known: Sequence[Evaluation],
        weights: Sequence[float],
    ) -> Linear:
        """The constant prediction that stands for a step from (x, sigma)."""
        return blend(weights, [k.denoised for k in known])

    def weights(
        self, path: Path, sigma: float, to: float, known: Sequence[Evaluation]
    ) -> tuple[float, ...]:
        """a_j of ``known`` over the step, summing to 1."""
        nodes, density = [k.sigma for k in known], self.density(path, sigma)
        return multistep_weights(path, self.params.coordinate, sigma, to, nodes, density)
