"""Heun."""

from __future__ import annotations

from gatekit import Sampler, StepContext, StepResult, lazy


class Heun(Sampler):
    """x' = x + (s' - s) (v(x, s) + v(x_euler, s'))/2. Order 2, two evaluations a step.

    Source: Karras et al., arXiv 2206.00364, algorithm 1 (deterministic).
    """

    name, order, nfe_per_step = "heun", 2, 2

    def step(self, c: StepContext) -> StepResult:
        """Trapezoidal rule with an Euler predictor."""
        denoised, ds = c.denoise(c.x, c.sigma), c.sigma_next - c.sigma
        v = c.velocity(lazy(c.x), denoised)
        x = c.x + ds * v
        v_next = c.velocity(x, c.denoise(x.tensor(), c.sigma_next), c.sigma_next)
        return StepResult((c.x + ds * (v + v_next) / 2).tensor(), denoised)
