"""CFG-Zero*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gatekit import GuidanceParams, Predict
from gatekit_basics.guidance import ClassifierFree, ScaleParams, over_sample

if TYPE_CHECKING:
    from torch import Tensor


class CFGZeroStarParams(ScaleParams):
    """Parameters of ``cfg_zero_star``.

    Attributes:
        scale: 1 is no guidance.
        start: Highest sigma that is guided; None: from the beginning.
        end: Lowest sigma that is guided.
        zero_above: The paper's zero-init: above this sigma the velocity is 0, and the model is not
            asked. None: nowhere. With history it is a bad bargain: the prediction D = x enters it.
    """

    zero_above: float | None = Field(None, gt=0)


class CFGZeroStar(ClassifierFree):
    """v = k v(negative) + scale (v(positive) - k v(negative)), k the best multiple. Two passes.

    k = <v(positive), v(negative)>/|v(negative)|^2 for each sample: k v(negative) is the part of
    v(positive) that lies along v(negative), so what is amplified is orthogonal to it.

    Source: Fan et al., arXiv 2503.18886, optimised scale and zero-init.
    """

    name = "cfg_zero_star"
    Params = CFGZeroStarParams

    def __init__(self, params: GuidanceParams | None = None) -> None:
        super().__init__(params)
        assert isinstance(self.params, CFGZeroStarParams)
        self.zero_above = self.params.zero_above

    def passes_at(self, sigma: float) -> int:
        """None above ``zero_above``."""
        zero = self.zero_above is not None and sigma > self.zero_above
        return 0 if zero else super().passes_at(sigma)

    def velocity(
        self, predict: Predict, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """0 above ``zero_above``, else guided as ``mix`` says."""
        if self.zero_above is not None and sigma > self.zero_above:
            return x * 0.0, memory
        return super().velocity(predict, x, sigma, memory)

    def mix(
        self,
        positive: Tensor,
        negative: Tensor,
        x: Tensor,
        sigma: float,
        memory: Mapping[str, Any],
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Project, then extrapolate."""
        axes = over_sample(negative)
        square = negative.square().sum(axes, keepdim=True)
        along = (positive * negative).sum(axes, keepdim=True) / square.clamp_min(1e-12)
        base = along * negative
        return base + self.scale * (positive - base), memory
