"""Euler ancestral."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gatekit import Sampler, SamplerParams, StepContext, StepResult, lazy


class AncestralParams(SamplerParams):
    """Parameters of ``euler_ancestral``.

    Attributes:
        eta: 0 is ``euler``; 1 the full noise of the rule.
        rule: How the step is split: ``lift`` (the DDPM posterior), ``sde`` (the exponential
            integrator of the reverse SDE), ``linear`` (in sigma itself: ComfyUI on flows).
    """

    eta: float = Field(1.0, ge=0, le=1)
    rule: Literal["lift", "sde", "linear"] = "lift"


class EulerAncestral(Sampler):
    """Down to sigma_down with D held constant, up again with noise. One evaluation a step.

    x' = renoise(transfer(x, D, sigma_down), sigma_down -> s'). At eta 1 lift and sde agree. From
    sigma 1 on a flow sde keeps nothing of x, which is noise there, and draws it anew.

    Source: Song et al., arXiv 2010.02502, equation 12; Crowson, k-diffusion
    ``sample_euler_ancestral``.
    """

    name, stochastic = "euler_ancestral", True
    Params = AncestralParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.stochastic = self.params.eta > 0.0

    def step(self, c: StepContext) -> StepResult:
        """Transfer, then noise."""
        denoised = c.denoise(c.x, c.sigma)
        down = c.sigma_down(self.params.eta, self.params.rule)
        return StepResult(c.renoise(c.transfer(lazy(c.x), denoised, down), down).tensor(), denoised)
