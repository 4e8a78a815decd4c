"""DPM-Solver++(3M)."""

from __future__ import annotations

from gatekit_samplers.coordinate import MultistepParams
from gatekit_samplers.multistep import ExponentialMultistep


class DPMpp3M(ExponentialMultistep):
    """The parabola through the last three predictions, integrated exactly. Order 3, one evaluation.

    x' = (s'/s) x + sum_j w_j D_j, j = 0..2. In k-diffusion's and diffusers' code the term of the
    second difference is half of the integral, phi_3 where 2 phi_3 is due, and the first step
    stays of order 1: each holds them at order 2.

    Source: Lu et al., arXiv 2211.01095, the multistep solver of order 3 in the authors' code; the
    integral is exact here.
    """

    name, order, history, points = "dpmpp_3m", 3, 2, 3
    Params = MultistepParams
