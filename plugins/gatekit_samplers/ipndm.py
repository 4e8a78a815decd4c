"""Improved pseudo numerical method."""

from __future__ import annotations

from pydantic import Field

from gatekit import SamplerParams
from gatekit_samplers.adams import AdamsBashforth, AdamsParams


class IPNDMParams(AdamsParams):
    """Parameters of iPNDM.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams.
        order: Velocities it uses at most; 4 in the paper.
    """

    order: int = Field(4, ge=1, le=4)


class IPNDM(AdamsBashforth):
    """Adams-Bashforth whose number of velocities grows from 1 to 4. One evaluation a step.

    x' = x + ds sum_j b_j v_j with the coefficients of variable steps, which sum to 1 (the usual
    constants 55, -59, 37, -9 hold for equal steps alone). Order 3 with three or four velocities:
    the first two steps have fewer.

    Source: Zhang and Chen, arXiv 2204.13902, iPNDM, there on the noise prediction (PNDM of Liu et
    al., arXiv 2202.09778, without its Runge-Kutta start).
    """

    name, order, history, points = "ipndm", 3, 3, 4
    Params = IPNDMParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.points = self.params.order
        self.order, self.history = min(self.points, 3), self.points - 1
