"""The sampler of the polish phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gatekit import StepContext
from gatekit_samplers.limited import LimitedUniPC
from gatekit_samplers.structure import StructureParams

if TYPE_CHECKING:
    from torch import Tensor


class PolishParams(StructureParams):
    """Parameters of ``polish``.

    Attributes:
        terminal: Largest last sigma from which the terminal step is taken; 0 never takes it.
        settle: Whether the last prediction is moved by what the corrector moved its state by.
    """

    terminal: float = Field(0.4, ge=0)
    settle: bool = True


class Polish(LimitedUniPC):
    """UniPC with p = 2 along theta, a limiter and a terminal step. Order 3, one evaluation a step.

    The interval to 0 goes on along sigma^2, in which D is even near 0:
    x(0) = D_n' + s_n^2/(s_{n-1}^2 - s_n^2) (D_n' - D_{n-1}). D_n was evaluated at the predicted
    state, and no step follows that could use its correction x_c. At low noise D keeps what the
    state shows, dD/dx = 1/alpha, nearly 1: D_n' = D_n + x_c - x. Both are skipped without a past,
    and where the last sigma is above ``terminal``: the step hurt at 0.52.

    Measured on the small model (docs/samplers.md), not on Wan weights.

    Source: Zhao et al., arXiv 2302.04867, with weights exact in c = theta (``gatekit.multistep``);
    limiter and terminal step are this project's.
    """

    name = "polish"
    Params = PolishParams

    def finish(self, c: StepContext, denoised: Tensor) -> Tensor:
        """Follow the correction, then extrapolate to sigma 0 in sigma^2."""
        if not c.past or c.sigma > self.params.terminal:
            return denoised
        last = c.past[0]
        if self.params.settle:
            denoised = denoised + (self.correct(c, denoised) - c.x)
        ratio = c.sigma**2 / (last.sigma**2 - c.sigma**2)
        return denoised + ratio * (denoised - last.denoised)
