"""Guidance: none, and classifier-free, everywhere or in a range of sigmas."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

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


class ScaleParams(GuidanceParams):
    """Parameters that all classifier-free guidance has.

    Attributes:
        scale: 1 is no guidance; Wan's own are 3 to 5.
        start: Highest sigma that is guided; None: from the beginning.
        end: Lowest sigma that is guided.
    """

    scale: float = Field(5.0, ge=0)
    start: float | None = Field(None, gt=0)
    end: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> ScaleParams:
        if self.start is not None and self.start < self.end:
            raise ValueError("start must not lie below end: sigma falls during a run")
        return self


class ClassifierFree(Guidance):
    """What classifier-free guidances share: both predictions where they are needed, else one.

    Two passes at a sigma in [end, start]; one elsewhere, and one everywhere at scale 1.
    """

    Params = ScaleParams
    needs = ("positive", "negative")

    def __init__(self, params: GuidanceParams | None = None) -> None:
        super().__init__(params)
        assert isinstance(self.params, ScaleParams)
        self.scale = self.params.scale
        if self.scale == 1.0:
            self.needs = ("positive",)  # pyright: ignore[reportAttributeAccessIssue]

    def guides(self, sigma: float) -> bool:
        """Whether ``sigma`` is guided."""
        p = self.params
        assert isinstance(p, ScaleParams)
        return self.scale != 1.0 and p.end <= sigma and (p.start is None or sigma <= p.start)

    def passes_at(self, sigma: float) -> int:
        """Two where it guides, else one."""
        return 2 if self.guides(sigma) else 1

    def velocity(
        self, predict: Predict, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """``mix`` of both predictions, or the conditional one."""
        if not self.guides(sigma):
            return predict(x, sigma, ("positive",))[0], memory
        positive, negative = predict(x, sigma, ("positive", "negative"))
        return self.mix(positive, negative, x, sigma, memory)

    @abstractmethod
    def mix(
        self,
        positive: Tensor,
        negative: Tensor,
        x: Tensor,
        sigma: float,
        memory: Mapping[str, Any],
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The guided velocity at (x, sigma) from both, and the memory for the next call."""


class CFG(ClassifierFree):
    """v = v(negative) + scale (v(positive) - v(negative)). Two passes; one where it is not guided.

    Velocities and denoised predictions mix alike.

    Source: Ho and Salimans, arXiv 2207.12598, equation 6 (with scale = 1 + w); the range of
    sigmas: Kynkaanniemi et al., arXiv 2404.07724.
    """

    name = "cfg"

    def mix(
        self,
        positive: Tensor,
        negative: Tensor,
        x: Tensor,
        sigma: float,
        memory: Mapping[str, Any],
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Extrapolate from the negative through the positive."""
        return negative + self.scale * (positive - negative), memory


def over_sample(x: Tensor) -> tuple[int, ...]:
    """Every axis but the batch's: sums over one sample."""
    return tuple(range(1, x.ndim))
