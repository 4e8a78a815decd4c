"""Latent consistency."""

from __future__ import annotations

from gatekit import Sampler, StepContext, StepResult


class LCM(Sampler):
    """Denoise all the way, then noise up to the next level. One evaluation a step.

    x' = alpha' D(x, s) + s' n. For distilled models, whose D is a consistency function: it maps x
    to the end of its flow, and then every x' has the right law. For an ordinary model D is a
    mean, and the result is too smooth.

    Source: Luo et al., arXiv 2310.04378, algorithm 3; Song et al., arXiv 2303.01469, algorithm 1.
    """

    name, stochastic = "lcm", True

    def step(self, c: StepContext) -> StepResult:
        """D, renoised from 0."""
        denoised = c.denoise(c.x, c.sigma)
        return StepResult(c.renoise(denoised, 0.0), denoised)
