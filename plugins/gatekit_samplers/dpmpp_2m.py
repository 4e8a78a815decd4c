"""DPM-Solver++(2M)."""

from __future__ import annotations

from gatekit import Sampler, StepContext, StepResult
from gatekit_samplers.coordinate import MultistepParams


class DPMpp2M(Sampler):
    """D extrapolated to the middle of the step, then an exact transfer. Order 2, one evaluation.

    D* = D_n + h/(2 h_last) (D_n - D_{n-1}), with h = c(s') - c(s) along the coordinate;
    x' = transfer(x, D*, s'). In ``lam`` this is Wan's dpm++ and diffusers'
    DPMSolverMultistepScheduler (midpoint); in ``u`` it is k-diffusion's dpmpp_2m run directly on
    a flow, as in ComfyUI. Where the last step started at a coordinate of infinity (sigma 1 in
    ``lam``), h_last is infinite and this step is of order 1, as in Wan's code.

    Source: Lu et al., arXiv 2211.01095, algorithm 2.
    """

    name, order, history = "dpmpp_2m", 2, 1
    Params = MultistepParams

    def step(self, c: StepContext) -> StepResult:
        """Extrapolate and transfer."""
        denoised = estimate = c.denoise(c.x, c.sigma)
        if c.past:
            at = [
                c.path.coordinate(self.params.coordinate, sigma)
                for sigma in (c.past[0].sigma, c.sigma, c.sigma_next)
            ]
            ratio = (at[2] - at[1]) / (at[1] - at[0])
            estimate = denoised + ratio / 2 * (denoised - c.past[0].denoised)
        return StepResult(c.transfer(c.x, estimate, c.sigma_next), denoised)
