"""ER-SDE."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from gatekit import SamplerParams, StepContext
from gatekit_samplers.coordinate import Coordinate, MultistepParams
from gatekit_samplers.multistep import Density, ExponentialMultistep

if TYPE_CHECKING:
    from gatekit import Path

Scale = Literal["ode", "sde", "sde_2", "sde_5"]


class ERSDEParams(MultistepParams):
    """Parameters of ER-SDE.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams. ve is the paper's.
        order: Predictions it uses.
        scale: The noise scale phi(v), v = s/alpha: ode v, sde v^2, sde_2 v^1.5, sde_5
            v (exp(v^0.3) + 10), the default of the authors' code.
    """

    coordinate: Coordinate = "ve"
    order: int = Field(3, ge=1, le=3)
    scale: Scale = "sde_5"


class ERSDE(ExponentialMultistep):
    """Multistep on an extended reverse SDE with a noise scale phi of choice. One evaluation a step.

    In X = x/alpha, v = s/alpha: X' = r X + (1 - r) D* + sqrt(v'^2 - r^2 v^2) n, r = phi(v')/phi(v);
    D* is the mean of the interpolant under d(1/phi). The paper expands D in v with numerical
    integrals; here the integral is Gauss-Legendre's. Order at scale ode: ``order``.

    Source: Cui et al., arXiv 2309.06169, ER-SDE-Solvers 1 to 3 and noise scales.
    """

    name, stochastic, order, history, points = "er_sde", True, 3, 2, 3
    Params = ERSDEParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.points = self.order = self.params.order
        self.history = self.points - 1
        self.stochastic = self.params.scale != "ode"

    def density(self, path: Path, sigma: float) -> Density | None:
        """d(1/phi)/dy = v^2 phi'(v)/phi(v)^2, a function of g = phi/v."""
        if self.params.scale == "ode":
            return None

        def density(s: float) -> float:
            gain, slope = _gain(self.params.scale, path.ve(s))
            return (1.0 + slope) / gain

        return density

    def down(self, c: StepContext) -> float:
        """The sigma of v phi(v')/phi(v) = v' g(v')/g(v)."""
        if self.params.scale == "ode":
            return c.sigma_next
        ve = c.path.ve(c.sigma_next)
        here, _ = _gain(self.params.scale, c.path.ve(c.sigma))
        there, _ = _gain(self.params.scale, ve)
        return min(c.path.from_ve(ve * there / here), c.sigma_next)


def _gain(scale: str, ve: float) -> tuple[float, float]:
    """g(v) = phi(v)/v, and v g'/g: what phi grows beyond v."""
    if scale == "sde":
        return ve, 1.0
    if scale == "sde_2":
        return math.sqrt(ve), 0.5
    power = ve**0.3
    if power > 700.0:
        return math.inf, 0.0  # the limit of the density is 0
    grown = math.exp(power)
    return grown + 10.0, 0.3 * power * grown / (grown + 10.0)
