"""Adams predictor-corrector for gatekit: the sampler ``pece``."""

from __future__ import annotations

from gatekit import Sampler, SamplerParams, StepContext, StepResult, hookimpl
from pydantic import Field


class PECEParams(SamplerParams):
    """Parameters of ``pece``."""

    corrections: int = Field(1, ge=1, le=3, description="Evaluations spent on correcting.")


class PECE(Sampler):
    """Predict, evaluate, correct, evaluate: Adams-Bashforth 2, then Adams-Moulton 3, on dx/ds = v.

    With steps h = s' - s and k = s - s_past, of any two lengths:

        x* = x + h (v + h/(2k) (v - v_past))
        x' = x + h [(2h + 3k) v*/(h + k) + (h + 3k) v/k - h^2 v_past/(k (h + k))] / 6

    Order 3, 1 + corrections evaluations a step. Without a past evaluation (the first step, or
    after a reset) it takes one step of Heun's method, whose error is of the same order.

    Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.1 and III.5.
    """

    name, order, history, Params = "pece", 3, 1, PECEParams
    nfe_per_step = 2

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.nfe_per_step = 1 + self.params.corrections

    def step(self, c: StepContext) -> StepResult:
        """One step, of Adams where there is a past, of Heun where there is none."""
        denoised = c.denoise(c.x, c.sigma)
        v, h = c.velocity(c.x, denoised), c.sigma_next - c.sigma
        past = c.past[0] if c.past else None
        x = c.x + h * v
        if past is not None:
            k = c.sigma - past.sigma
            x = x + h * h / (2 * k) * (v - past.velocity)
        for _ in range(self.params.corrections):
            v_next = c.velocity(x, c.denoise(x, c.sigma_next), c.sigma_next)
            if past is None:
                x = c.x + h / 2 * (v + v_next)
                continue
            older = h * h / (k * (h + k)) * past.velocity
            x = c.x + h / 6 * ((2 * h + 3 * k) / (h + k) * v_next + (h + 3 * k) / k * v - older)
        return StepResult(x, denoised)


@hookimpl
def gatekit_register_samplers() -> list[type[Sampler]]:
    """Offer it to gatekit."""
    return [PECE]
