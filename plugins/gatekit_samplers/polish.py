"""The sampler of the polish phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gatekit import StepContext
from gatekit_samplers.structure import StructureParams
from gatekit_samplers.unipc import UniPC

if TYPE_CHECKING:
    from torch import Tensor


class PolishParams(StructureParams):
    """Parameters of ``polish``.

    Attributes:
        terminal: Largest last sigma from which the terminal step is taken; 0 never takes it.
    """

    terminal: float = Field(0.4, ge=0)


class Polish(UniPC):
    """UniPC with p = 2 along theta, and a terminal step. Order 3, one evaluation a step.

    D is even in sigma near 0, so the interval to 0 goes on along sigma^2:
    x(0) = D_n + s_n^2/(s_{n-1}^2 - s_n^2) (D_n - D_{n-1}). It is skipped without a past, and where
    the last sigma is above ``terminal``: it hurt at 0.52.

    PROVISIONAL: chosen on an exact mixture and a small network, not on Wan weights.

    Source: Zhao et al., arXiv 2302.04867, with weights exact in c = theta (``gatekit.multistep``);
    the terminal step is this project's.
    """

    name = "polish"
    Params = PolishParams

    def finish(self, c: StepContext, denoised: Tensor) -> Tensor:
        """Extrapolate to sigma 0 in sigma^2."""
        if not c.past or c.sigma > self.params.terminal:
            return denoised
        last = c.past[0]
        ratio = c.sigma**2 / (last.sigma**2 - c.sigma**2)
        return denoised + ratio * (denoised - last.denoised)
