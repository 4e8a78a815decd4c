"""Adams-Bashforth with variable steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gatekit import Evaluation, Linear, lazy
from gatekit_samplers.coordinate import Coordinate, MultistepParams
from gatekit_samplers.multistep import Density, ExponentialMultistep, blend

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit import Path


class AdamsParams(MultistepParams):
    """Parameters of the Adams-Bashforth samplers.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams. s is the textbook's.
    """

    coordinate: Coordinate = "s"


class AdamsBashforth(ExponentialMultistep):
    """x' = x + (s' - s) sum_j b_j v_j, b_j the mean over the step of the Lagrange basis.

    The coefficients follow the steps and sum to 1. Over equal steps they are the textbook's.

    Source: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", 2nd edition,
    section III.5 (variable steps).
    """

    Params = AdamsParams

    def density(self, path: Path, sigma: float) -> Density:
        """That of ds = -s^2 dy."""
        return lambda s: s * s

    def mean(
        self,
        path: Path,
        x: Tensor | Linear,
        sigma: float,
        known: Sequence[Evaluation],
        weights: Sequence[float],
    ) -> Linear:
        """The D whose velocity at (x, sigma) is sum_j b_j v_j."""
        if len(known) == 1:
            return lazy(known[0].denoised)
        velocities = [path.velocity(lazy(k.x), k.denoised, k.sigma) for k in known]
        return lazy(x) - sigma * blend(weights, velocities)


class AB2(AdamsBashforth):
    """Adams-Bashforth, variable steps: x' = x + ds (b_0 v_n + b_1 v_{n-1}). Order 2.

    One evaluation a step.

    Source: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", section III.5.
    """

    name, order, history, points = "ab2", 2, 1, 2


class AB3(AdamsBashforth):
    """Adams-Bashforth, variable steps, over three velocities. Order 3, one evaluation a step.

    The first step is redone once its end is known, else the order were 2.

    Source: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", section III.5.
    """

    name, order, history, points = "ab3", 3, 2, 3
