"""RES, multistep, three predictions."""

from __future__ import annotations

from gatekit_samplers.multistep import ExponentialMultistep
from gatekit_samplers.res_2m import RESParams


class RES3M(ExponentialMultistep):
    """The parabola through the last three predictions, integrated exactly. Order 3, one evaluation.

    x' = (s'/s) x + sum_j w_j D_j with sum_j b_j c_j = phi_2 and sum_j b_j c_j^2 = 2 phi_3. In
    ``lam`` it is ``dpmpp_3m``; its own default is the coordinate u.

    Source: Zhang et al., arXiv 2308.02157, the order conditions in their multistep form.
    """

    name, order, history, points = "res_3m", 3, 2, 3
    Params = RESParams
