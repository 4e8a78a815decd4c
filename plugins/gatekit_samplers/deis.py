"""DEIS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from gatekit import Evaluation, Linear, SamplerParams, StepContext, lazy
from gatekit_samplers.coordinate import Coordinate, MultistepParams
from gatekit_samplers.multistep import Density, ExponentialMultistep, blend

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit import Path


class DEISParams(MultistepParams):
    """Parameters of DEIS.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams. ve is the paper's rho-AB; lam, its
            logarithm, is diffusers'.
        order: Noise predictions it uses. On a flow rho is steep near sigma 1, and order 3 in it
            gains only with many steps.
    """

    coordinate: Coordinate = "ve"
    order: int = Field(2, ge=1, le=3)


class DEIS(ExponentialMultistep):
    """Adams-Bashforth on the NOISE prediction along rho = s/alpha. Order 2, one evaluation a step.

    x'/alpha' = x/alpha + sum_j e_j * integral of l_j d rho, with e = (x - alpha D)/s. On the
    variance-exploding path e is the velocity and this is ``ab2``.

    Source: Zhang and Chen, arXiv 2204.13902, rho-AB-DEIS.
    """

    name, order, history, points = "deis", 2, 1, 2
    Params = DEISParams

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.points = self.order = self.params.order
        self.history = self.points - 1

    def density(self, path: Path, sigma: float) -> Density:
        """That of d rho = -rho^2 dy."""
        return lambda s: path.ve(s) ** 2

    def corrected(self, c: StepContext, denoised: Tensor) -> Tensor | Linear:
        """As usual, but not where rho was infinite."""
        infinite = bool(c.past) and c.alpha(c.past[0].sigma) == 0.0
        return c.x if infinite else super().corrected(c, denoised)

    def mean(
        self,
        path: Path,
        x: Tensor | Linear,
        sigma: float,
        known: Sequence[Evaluation],
        weights: Sequence[float],
    ) -> Linear:
        """The D whose noise at (x, sigma) is sum_j b_j e_j."""
        if not any(weights[1:]) and known[0].sigma == sigma:
            return lazy(known[0].denoised)
        noises = [(lazy(k.x) - path.alpha(k.sigma) * lazy(k.denoised)) / k.sigma for k in known]
        return (lazy(x) - sigma * blend(weights, noises)) / path.alpha(sigma)
