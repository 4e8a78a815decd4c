"""Guidance: none, and classifier-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gatekit import Guidance, GuidanceParams, Predict

if TYPE_CHECKING:
    from torch import Tensor


class Unguided(Guidance):
    """The conditional prediction as it is. One pass."""

    name = "none"

    def velocity(
        self, predict: Predict, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """v(positive)."""
        (positive,) = predict(x, sigma, ("positive",))
        return positive, memory


class CFGParams(GuidanceParams):
    """Parameters of ``cfg``.

    Attributes:
        scale: 1 is no guidance; Wan's own are 3 to 5.
    """

    scale: float = Field(5.0, ge=0)


class CFG(Guidance):
    """v = v(negative) + scale (v(positive) - v(negative)). Two passes; one at scale 1.

    Source: Ho and Salimans, arXiv 2207.12598, equation 6 (with scale = 1 + w).
    """

    name = "cfg"
    Params = CFGParams
    needs = ("positive", "negative")

    def __init__(self, params: GuidanceParams | None = None) -> None:
        super().__init__(params)
        assert isinstance(self.params, CFGParams)
        self.scale = self.params.scale
        if self.scale == 1.0:
            self.needs = ("positive",)  # pyright: ignore[reportAttributeAccessIssue]

    def velocity(
        self, predict: Predict, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Guided velocity; velocities and denoised predictions mix alike."""
        if self.scale == 1.0:
            return predict(x, sigma, ("positive",))[0], memory
        positive, negative = predict(x, sigma, ("positive", "negative"))
        return negative + self.scale * (positive - negative), memory
