"""RES, single step, two stages."""

from __future__ import annotations

from pydantic import Field

from gatekit_samplers.res_2m import RESParams
from gatekit_samplers.stages import TwoStages


class RES2SParams(RESParams):
    """Parameters of ``res_2s``.

    Attributes:
        coordinate: Axis of the stages; see RESParams.
        c2: Where in the step the second evaluation lies.
    """

    c2: float = Field(0.5, gt=0, le=1)


class RES2S(TwoStages):
    """Exponential Runge-Kutta: b_2 = phi_2/c_2, b_1 = phi_1 - b_2. Order 2, two evaluations a step.

    x_2 = transfer(x, D, s_2); x' = (s'/s) x + w_1 D + w_2 D(x_2, s_2).

    Source: Zhang et al., arXiv 2308.02157, algorithm 1; Hochbruck and Ostermann, SIAM J. Numer.
    Anal. 43 (2005) 1069, section 5.
    """

    name = "res_2s"
    Params = RES2SParams
