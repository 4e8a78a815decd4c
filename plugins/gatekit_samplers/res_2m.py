"""RES, multistep, two predictions."""

from __future__ import annotations

from gatekit_samplers.coordinate import Coordinate, MultistepParams
from gatekit_samplers.multistep import ExponentialMultistep


class RESParams(MultistepParams):
    """Parameters of the RES samplers.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams. u is how ComfyUI runs RES on a
            flow; lam is the paper's.
    """

    coordinate: Coordinate = "u"


class RES2M(ExponentialMultistep):
    """The line through the last two predictions, integrated exactly. Order 2, one evaluation.

    x' = (s'/s) x + w_0 D_n + w_1 D_{n-1}: b_2 = phi_2/c_2 with c_2 = -h_last/h, b_1 = phi_1 - b_2.
    Other than ``dpmpp_2m``, which takes the line's value at the middle of the step.

    Source: Zhang et al., arXiv 2308.02157, the multistep form of its refined exponential solver.
    """

    name, order, history, points = "res_2m", 2, 1, 2
    Params = RESParams
