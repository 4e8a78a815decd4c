"""RES, single step, three stages."""

from __future__ import annotations

from pydantic import Field, model_validator

from gatekit_samplers.res_2m import RESParams
from gatekit_samplers.stages import ThreeStages


def check_nodes(c2: float, c3: float) -> None:
    """Refuse nodes for which the order conditions have no solution.

    Raises:
        ValueError: For pydantic to report.
    """
    if c2 >= c3:
        raise ValueError("c2 must lie before c3")
    bottom = c2 * (2 - 3 * c2)
    if abs(bottom) < 1e-6 or abs((3 * c3**2 - 2 * c3) / bottom * c2 + c3) < 1e-6:
        raise ValueError("no method of order 3 has these c2 and c3; use 0.5 and 1")


class RES3SParams(RESParams):
    """Parameters of ``res_3s``.

    Attributes:
        coordinate: Axis of the stages; see RESParams.
        c2: Where in the step the second evaluation lies; not 2/3.
        c3: Where the third lies, beyond c2.
    """

    c2: float = Field(0.5, gt=0, le=1)
    c3: float = Field(1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _solvable(self) -> RES3SParams:
        check_nodes(self.c2, self.c3)
        return self


class RES3S(ThreeStages):
    """Exponential Runge-Kutta with gamma = (3 c_3^2 - 2 c_3)/(c_2 (2 - 3 c_2)). Order 3.

    Three evaluations a step. gamma solves 2 (gamma c_2 + c_3) = 3 (gamma c_2^2 + c_3^2); with
    3 c_3^3 in its place, as one sees it elsewhere, the order is 2 unless c_3 is 1.

    Source: Hochbruck and Ostermann, SIAM J. Numer. Anal. 43 (2005) 1069, section 5; Zhang et al.,
    arXiv 2308.02157, the order conditions for diffusion.
    """

    name = "res_3s"
    Params = RES3SParams
