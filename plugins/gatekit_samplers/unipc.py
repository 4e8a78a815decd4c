"""UniPC."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from gatekit import (
    Linear,
    Sampler,
    SamplerParams,
    StepContext,
    StepResult,
    evaluate,
    lazy,
    multistep_weights,
)
from gatekit_samplers.coordinate import Coordinate, MultistepParams
from gatekit_samplers.multistep import blend, columns

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit import Path


class UniPCParams(MultistepParams):
    """Parameters of UniPC.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams.
        order: p, the highest order of the predictor.
        weights: ``bh2`` is B(h) = e^h - 1 of the paper, as Wan and diffusers use it (its
            predictor of order 2 and corrector of order 1 take the weight 1/2), ``bh1`` is
            B(h) = h (they take h/(2 - 2 e^-h): more than 1 for h > 1.6, wild at high noise). Both
            exist in ``lam`` and ``u``. ``exact`` integrates the interpolant. ``auto`` is bh2 in
            lam, else exact.
        corrector: Whether to correct each step once its end has been evaluated.
    """

    coordinate: Coordinate = "lam"
    order: int = Field(2, ge=1, le=3)
    weights: Literal["auto", "bh1", "bh2", "exact"] = "auto"
    corrector: bool = True

    @model_validator(mode="after")
    def _bh_needs_exponentials(self) -> UniPCParams:
        if self.weights in ("bh1", "bh2") and self.coordinate not in ("lam", "u"):
            raise ValueError(
                f"weights '{self.weights}' exist in the coordinates lam and u; use 'exact'"
            )
        return self


class UniPC(Sampler):
    """Multistep predictor, and a corrector that costs no evaluation. One evaluation a step.

    The corrector redoes the last step from ``start`` with the new D as one more node:
    x_c = transfer(start, sum_j a_j D_j), over (D_n, D_{n-1}, ..., D_{n-p}); the predictor goes on
    from x_c with (D_n, ..., D_{n-p+1}). By default Wan's FlowUniPC: p = 2, bh2, lam.

    The corrector lifts the order of convergence to p + 1: ``params.order`` is the paper's p,
    the attribute ``order`` what is measured, at most 3 because the first and the last step have
    a predictor of lower order. Over one step it denoises (the runner owns the interval to 0).

    Source: Zhao et al., arXiv 2302.04867: UniP, UniC and their B(h).
    """

    name, order, history = "unipc", 3, 2
    Params = UniPCParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.order = min(self.params.order + self.params.corrector, 3)
        self.history = self.params.order

    def step(self, c: StepContext) -> StepResult:
        """Correct the step behind, predict the step ahead."""
        denoised = c.denoise(c.x, c.sigma)
        start = lazy(self._corrected(c, denoised)).once()
        x, start = evaluate(c.transfer(start, self.predicted(c, denoised), c.sigma_next), start)
        return StepResult(x, denoised, start=start)

    def predicted(self, c: StepContext, denoised: Tensor) -> Linear:
        """The mean prediction over the step ahead."""
        # The order falls towards the end of the run, so that the last step has order 1.
        past = c.past[: min(self.params.order, c.steps_left) - 1]
        nodes, values = columns((c.sigma, denoised), past)
        return self._blend(c.path, c.sigma, c.sigma_next, nodes, values, implicit=False)

    def correct(self, c: StepContext, denoised: Tensor) -> Tensor:
        """As ``step`` does first."""
        return evaluate(self._corrected(c, denoised))[0]

    def _corrected(self, c: StepContext, denoised: Tensor) -> Tensor | Linear:
        """The step that led to (c.x, c.sigma), redone with D there; c.x where it cannot be."""
        start = c.past[0].start if c.past else None
        if start is None or not self.params.corrector:
            return c.x
        # As many evaluations as the predictor of that step had.
        past = c.past[: min(self.params.order, c.steps_left + 1)]
        nodes, values = columns((c.sigma, denoised), past)
        last = past[0]
        estimate = self._blend(c.path, last.sigma, c.sigma, nodes, values, implicit=True)
        return c.transfer(start, estimate, c.sigma, start=last.sigma)

    def _blend(
        self,
        path: Path,
        sigma: float,
        sigma_next: float,
        nodes: Sequence[float],
        values: Sequence[Tensor],
        implicit: bool,
    ) -> Linear:
        """sum_j a_j D_j over the step."""
        p = self.params
        kind = p.weights if p.weights != "auto" else "bh2" if p.coordinate == "lam" else "exact"
        if kind == "exact":
            weights = multistep_weights(path, p.coordinate, sigma, sigma_next, nodes)
        else:
            weights = bh_weights(path, p.coordinate, sigma, sigma_next, nodes, implicit, kind)
        return blend(weights, values)


def bh_weights(
    path: Path,
    coordinate: str,
    sigma: float,
    sigma_next: float,
    nodes: Sequence[float],
    implicit: bool,
    kind: str = "bh2",
) -> list[float]:
    """Weights a_j, summing to 1, of UniPC's update over one step.

    With r_j = (c_j - c(s))/h and psi_k = integral of (e^(h r)/..) r^k, the weights satisfy
    sum_j rho_j r_j^k = psi_k for k = 1..p, where rho_j = a_j r_j (the paper's
    linear system). One unknown takes rho = 1/2 times B(h)/(e^h - 1): this alone tells bh1 from bh2.

    Args:
        path: Noise path.
        coordinate: ``lam`` or ``u``.
        sigma: Start of the step.
        sigma_next: Its end.
        nodes: Sigmas of the evaluations. Explicit: sigma first. Implicit: sigma_next, then sigma.
        implicit: Whether the first node is the end of the step.
        kind: ``bh1`` or ``bh2``; over an infinite step (from sigma 1 in ``lam``) bh2.
    """
    at = [path.coordinate(coordinate, node) for node in nodes]
    start = path.coordinate(coordinate, sigma)
    h = path.coordinate(coordinate, sigma_next) - start
    base = 1 if implicit else 0
    others = [j for j in range(len(nodes)) if j != base and math.isfinite(at[j])]
    ratios = [1.0 if j == 0 else (at[j] - start) / h for j in others]
    if len(others) == 1 and len(nodes) == 2:
        rho = [0.5 * h / -math.expm1(-h) if kind == "bh1" and math.isfinite(h) else 0.5]
    else:
        rho = _solve(ratios, _moments(h, len(others)))
    weights = [0.0] * len(nodes)
    for j, r, share in zip(others, ratios, rho, strict=True):
        weights[j] = share / r
    weights[base] = 1.0 - math.fsum(weights)
    return weights


def _moments(h: float, count: int) -> list[float]:
    """The right sides of the system: k! phi_{k+1}(-h) h / (1 - e^-h) for k = 1..count."""
    if math.isinf(h):
        return [1.0] * count
    phi, factorial, moments = math.expm1(-h) / -h - 1.0, 1.0, list[float]()
    for k in range(1, count + 1):
        moments.append(phi * factorial / math.expm1(-h))
        factorial *= k + 1
        phi = phi / -h - 1.0 / factorial
    return moments


def _solve(ratios: Sequence[float], moments: Sequence[float]) -> list[float]:
    """Solve for rho: sum_j rho_j r_j^(k-1) = moments_k (Vandermonde), by the Lagrange basis."""
    solution: list[float] = []
    for j, r in enumerate(ratios):
        coefficients, scale = [1.0], 1.0
        for i, other in enumerate(ratios):
            if i != j:
                coefficients = [
                    a - other * b
                    for a, b in zip([0.0, *coefficients], [*coefficients, 0.0], strict=True)
                ]
                scale *= r - other
        solution.append(sum(a * m for a, m in zip(coefficients, moments, strict=True)) / scale)
    return solution
