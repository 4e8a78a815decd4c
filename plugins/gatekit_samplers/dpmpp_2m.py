"""DPM-Solver++(2M)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gatekit import Evaluation
from gatekit_samplers.coordinate import MultistepParams
from gatekit_samplers.multistep import ExponentialMultistep

if TYPE_CHECKING:
    from gatekit import Path


class DPMpp2M(ExponentialMultistep):
    """D extrapolated to the middle of the step, then an exact transfer. Order 2, one evaluation.

    D* = D_n + h/(2 h_last) (D_n - D_{n-1}), with h = c(s') - c(s) along the coordinate;
    x' = transfer(x, D*, s'). In ``lam`` this is Wan's dpm++ and diffusers'
    DPMSolverMultistepScheduler (midpoint); in ``u`` it is k-diffusion's dpmpp_2m run directly on
    a flow, as in ComfyUI. Where the last step started at a coordinate of infinity (sigma 1 in
    ``lam``), h_last is infinite and this step is of order 1, as in Wan's code.

    Source: Lu et al., arXiv 2211.01095, algorithm 2.
    """

    name, order, history, points = "dpmpp_2m", 2, 1, 2
    Params = MultistepParams
    limit = math.inf  # none in Wan's code

    def weights(
        self, path: Path, sigma: float, to: float, known: Sequence[Evaluation]
    ) -> tuple[float, ...]:
        """1 + h/(2 h_last) and -h/(2 h_last)."""
        if len(known) == 1:
            return (1.0,)
        last, start, end = (
            path.coordinate(self.params.coordinate, s) for s in (known[1].sigma, sigma, to)
        )
        ratio = (end - start) / (start - last) / 2
        return 1.0 + ratio, -ratio
