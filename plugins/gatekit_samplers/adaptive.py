"""Runge-Kutta with error control: the sampler chooses its own steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from gatekit import (
    NumericsError,
    Sampler,
    SamplerParams,
    StepContext,
    StepResult,
    StretchContext,
    lazy,
)
from gatekit_samplers.runge_kutta import DOPRI5, RALSTON3, Tableau, combine

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-4  # of sigma: seven thousand steps to halve it would help nobody


class AdaptiveParams(SamplerParams):
    """Parameters of the adaptive samplers.

    Attributes:
        rtol: Error allowed a step, relative to the size of x, as RMS over each sample.
        atol: Error allowed a step where x is small.
        sigma_min: Where a run to 0 stops; D there is the result.
        first_step: The first step tried, as a share of sigma.
        safety: Share of the step that the estimate would allow.
    """

    rtol: float = Field(0.01, gt=0, lt=1)
    atol: float = Field(0.01, gt=0)
    sigma_min: float = Field(0.02, gt=0, lt=1)
    first_step: float = Field(0.02, gt=0, le=1)
    safety: float = Field(0.9, gt=0, lt=1)


class AdaptiveRungeKutta(Sampler):
    """Embedded pair on dx/dsigma = v: h' = h clip(safety err^(-1/order), 0.2, 5).

    err is the largest over the batch of RMS((x' - x*)/(atol + rtol max(|x|, |x'|))); a step with
    err > 1 is tried again. The evaluation at the step's end serves the next step.
    """

    adaptive = True
    Params = AdaptiveParams
    tableau: Tableau

    def step(self, c: StepContext) -> StepResult:
        """One step of the tableau, whatever its error."""
        x, denoised, ahead, _ = self._attempt(
            c, c.x, c.denoise(c.x, c.sigma), c.sigma, c.sigma_next
        )
        return StepResult(x, denoised, ahead=ahead)

    def integrate(self, c: StretchContext) -> Iterator[tuple[float, StepResult]]:  # type: ignore[override]
        """Accepted steps, down to the stretch's end or to sigma_min."""
        p, x, sigma = self.params, c.x, c.sigma
        end = c.sigmas[-1] if c.sigmas[-1] > 0.0 else min(p.sigma_min, sigma)
        denoised = c.denoise(x, sigma) if sigma > end else x
        h = float(c.memory.get("h", p.first_step * sigma))
        while sigma > end:
            clipped = h >= sigma - end
            to = end if clipped else sigma - h
            if not clipped and h < SMALLEST * sigma:
                raise NumericsError(
                    f"{self.name}: the error stays too large however small the step",
                    where=f"sigma {sigma:.6g}",
                    remedy=f"raise rtol or atol (they are {p.rtol} and {p.atol})",
                )
            new, before, ahead, error = self._attempt(c, x, denoised, sigma, to)
            size = sigma - to
            growth = p.safety * max(error, 1e-10) ** (-1.0 / self.tableau.order)
            proposed = size * min(max(growth, 0.2), 5.0)
            if error > 1.0:
                h = min(proposed, 0.9 * size)
                continue
            h = max(h, proposed) if clipped else proposed  # a step cut short tells less
            x, sigma, denoised = new, to, ahead
            yield sigma, StepResult(x, before, ahead=ahead, memory={"h": h})

    def _attempt(
        self, c: StepContext, x: Tensor, denoised: Tensor, sigma: float, to: float
    ) -> tuple[Tensor, Tensor, Tensor, float]:
        """(x', D, D', error) of one step; one synchronisation with the device."""
        t, p, h = self.tableau, self.params, to - sigma
        slopes = t.slopes(c, x, denoised, sigma, to)
        new = (x + h * combine(t.weights, slopes)).tensor()
        ahead = c.denoise(new, to)
        gap = h * combine(t.error, [*slopes, c.velocity(lazy(new), ahead, to)])
        scaled = gap.tensor() / (p.atol + p.rtol * x.abs().maximum(new.abs()))
        error = scaled.flatten(1).square().mean(1).max().sqrt()
        return new, denoised, ahead, float(error)


class RK45(AdaptiveRungeKutta):
    """Dormand-Prince 5(4) that chooses its steps. Order 5, six evaluations an attempted step.

    Source: Dormand and Prince, J. Comput. Appl. Math. 6 (1980) 19; step control: Hairer, Norsett,
    Wanner, "Solving Ordinary Differential Equations I", 2nd edition, equations II.4.11 to II.4.13.
    """

    name, order, nfe_per_step, tableau = "rk45", 5, 6, DOPRI5


class RK23(AdaptiveRungeKutta):
    """Bogacki-Shampine 3(2) that chooses its steps. Order 3, three evaluations an attempted step.

    Source: Bogacki and Shampine, Appl. Math. Lett. 2 (1989) 321; step control: Hairer, Norsett,
    Wanner, "Solving Ordinary Differential Equations I", 2nd edition, equations II.4.11 to II.4.13.
    """

    name, order, nfe_per_step, tableau = "rk23", 3, 3, RALSTON3
