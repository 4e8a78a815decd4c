"""UniPC whose predictor extrapolates no further than its last extrapolation was right."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gatekit import Linear, StepContext
from gatekit_samplers.unipc import UniPC, UniPCParams

if TYPE_CHECKING:
    from torch import Tensor


class LimitedParams(UniPCParams):
    """Parameters of UniPC with a limiter.

    Attributes:
        limit: Whether the predictor's slope is limited.
    """

    limit: bool = True


class LimitedUniPC(UniPC):
    """UniPC with p = 2, and a limiter on the slope of its predictor. One evaluation a step.

    At few evaluations a guided model turns faster than the line through its last two predictions
    says, and single samples run away. The new prediction tells how good that line was:

        rho = |D_n - L(c_n)| / |D_n - D_{n-1}|,   L the line through D_{n-1} and D_{n-2},

    each sample by itself. rho <= 1: the line was at least as good as holding D_{n-1}, and the
    predictor is left alone. Else the slope of the line through D_n and D_{n-1}, by which it goes
    on, is multiplied by 1/rho^2. Where steps are short rho tends to 0, so the order is kept.
    Nothing waits for the device.

    Source: the limiter is this project's, in the manner of the slope limiters of finite volumes
    (van Leer, J. Comput. Phys. 32 (1979) 101).
    """

    Params = LimitedParams

    def predicted(self, c: StepContext, denoised: Tensor) -> Linear:
        """The mean prediction, its slope limited."""
        mean = super().predicted(c, denoised)
        places = [self._place(c, e.sigma) for e in c.past[:2]]
        if not self.params.limit or len(mean.terms) != 2 or not all(map(math.isfinite, places)):
            return mean
        if len(places) < 2:
            return mean
        newest, older = c.past[:2]
        reach = (self._place(c, c.sigma) - places[0]) / (places[0] - places[1])
        turn = denoised - newest.denoised
        missed = turn - reach * (newest.denoised - older.denoised)
        rho = _norm(missed) / _norm(turn).clamp_min(1e-30)
        (weight,) = (w for w, tensor in mean.terms if tensor is newest.denoised)
        slope = rho.clamp_min(1.0).square().reciprocal() * -weight
        return Linear([(1.0, denoised), (1.0, turn * slope)])

    def _place(self, c: StepContext, sigma: float) -> float:
        return c.path.coordinate(self.params.coordinate, sigma)


def _norm(values: Tensor) -> Tensor:
    """Of each sample, ``[B, 1, ...]``."""
    return values.flatten(1).norm(dim=1).view(-1, *[1] * (values.ndim - 1))
