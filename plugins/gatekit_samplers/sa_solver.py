"""SA-Solver."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from gatekit import Evaluation, Linear, SamplerParams, StepContext, StepResult, lazy
from gatekit_samplers.coordinate import MultistepParams
from gatekit_samplers.multistep import ExponentialMultistep

if TYPE_CHECKING:
    from torch import Tensor


class SASolverParams(MultistepParams):
    """Parameters of SA-Solver.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams.
        order: Predictions of the predictor; the corrector uses one more, the new one.
        tau: Strength of the noise, the paper's tau: 0 is deterministic, 1 the reverse SDE.
        sigma_low: Steps that start below take no noise.
        sigma_high: Steps that start above take no noise; None: no such bound.
    """

    order: int = Field(3, ge=1, le=3)
    tau: float = Field(1.0, ge=0, le=1.4)
    sigma_low: float = Field(0.0, ge=0)
    sigma_high: float | None = Field(None, gt=0)


class SASolver(ExponentialMultistep):
    """Stochastic Adams predictor, and a corrector that keeps its noise. One evaluation a step.

    x' = (s'/s) (y/y')^(tau^2) x + sum_j W_j D_j + s' sqrt(1 - (y/y')^(2 tau^2)) n; the corrector
    redoes it with D at the end as one more node and the same n, which is x' plus the change of
    sum_j W_j D_j. Order at tau 0: min(order + 1, 3).

    History ``close`` has nothing to correct early: the shifted history gives the same change on
    entry.

    Source: Xue et al., arXiv 2309.05019, SA-Predictor and SA-Corrector, coefficients of equations
    15 and 18.
    """

    name, stochastic, order, history = "sa_solver", True, 3, 3
    Params = SASolverParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        p = self.params
        self.points = self.history = p.order
        self.order, self.stochastic = min(p.order + 1, 3), p.tau > 0.0

    def strength(self, sigma: float) -> float:
        """tau^2 inside the window of sigmas."""
        p = self.params
        high = math.inf if p.sigma_high is None else p.sigma_high
        return p.tau**2 if p.sigma_low <= sigma <= high else 0.0

    def step(self, c: StepContext) -> StepResult:
        """Correct the step behind, predict the step ahead; remember how many points it had."""
        denoised = c.denoise(c.x, c.sigma)
        x, start, points = self.advance(c, denoised)
        return StepResult(x, denoised, start=start, memory={"points": float(points)})

    def correct(self, c: StepContext, denoised: Tensor) -> Tensor:
        """Nothing: see the class."""
        return c.x

    def corrected(self, c: StepContext, denoised: Tensor) -> Tensor | Linear:
        """The last step redone, with its own noise."""
        past = c.past[: int(float(c.memory.get("points", 0.0)))]
        if not past:
            return c.x
        start = past[0].sigma
        if not math.isfinite(c.path.coordinate(self.params.coordinate, start)):
            return c.x  # from infinity the corrector has no more nodes than the predictor
        known = (Evaluation(c.sigma, c.x, denoised, ""), *past)
        after, before = (
            self.mean(c.path, c.x, start, k, self.weights(c.path, start, c.sigma, k))
            for k in (known, past)
        )
        ratio = c.path.ve(c.sigma) / c.path.ve(start)
        share = -math.expm1((1.0 + self.strength(start)) * math.log(ratio)) if ratio > 0.0 else 1.0
        return lazy(c.x) + c.alpha(c.sigma) * share * (after - before)
