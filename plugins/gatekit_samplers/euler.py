"""Euler."""

from __future__ import annotations

from gatekit import Sampler, StepContext, StepResult


class Euler(Sampler):
    """x' = x + (s' - s) v, v = (x - D)/s: equal to DDIM on every path. Order 1, one evaluation.

    Source: Karras et al., arXiv 2206.00364, algorithm 1 without its second stage; Song et al.,
    arXiv 2010.02502, equation 12 with sigma_t = 0.
    """

    name, order = "euler", 1

    def step(self, c: StepContext) -> StepResult:
        """Move along the flow of the denoised prediction, held constant."""
        denoised = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, denoised, c.sigma_next), denoised)
