"""Grids that are even in a coordinate of the flow: y, lam, theta; and the tangent S-curve.

On a rectified flow y = (1 - s)/s = e^lam is the variable in which the ODE reads dz/dy = D,
regular at s = 1; lam = log y is even-handed in between; theta = atan2(1 - s, s) is regular at
both ends.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

from pydantic import Field

from gatekit import GridParams, SigmaGrid
from gatekit_basics.curvature import sigma_of, theta
from gatekit_basics.grids import ToSmallest, linear


class FlowGridParams(GridParams):
    """Parameters of the grids that cannot be even down to 0.

    Attributes:
        sigma_min: Last sigma before 0, where a stretch ends at 0.
    """

    sigma_min: float = Field(0.02, gt=0, lt=1)


class _Even(ToSmallest):
    """Even in a coordinate that grows towards the video; the last step goes to 0 at once."""

    Params = FlowGridParams

    @abstractmethod
    def coordinate(self, sigma: float) -> float:
        """Value at ``sigma``."""

    @abstractmethod
    def sigma(self, value: float) -> float:
        """Inverse of ``coordinate``."""

    def between(self, start: float, end: float, steps: int) -> list[float]:
        """Even in the coordinate."""
        values = linear(self.coordinate(start), self.coordinate(end), steps)
        return [self.sigma(v) for v in values]


class YUniform(_Even):
    """Even in y = (1 - s)/s: where the prediction is nearly linear in y, near s = 1."""

    name = "y_uniform"

    def coordinate(self, sigma: float) -> float:
        """(1 - s)/s."""
        return (1.0 - sigma) / sigma

    def sigma(self, value: float) -> float:
        """1/(1 + y)."""
        return 1.0 / (1.0 + value)


class LamUniformParams(FlowGridParams):
    """Parameters of ``lam_uniform``.

    Attributes:
        sigma_max: Where lam begins if the stretch begins at 1, where lam is -infinity.
    """

    sigma_max: float = Field(0.98, gt=0, lt=1)


class LamUniform(_Even):
    """Even in lam = log((1 - s)/s). From s = 1 the first step goes to ``sigma_max``."""

    name = "lam_uniform"
    Params = LamUniformParams

    def coordinate(self, sigma: float) -> float:
        """Log((1 - s)/s)."""
        return math.log((1.0 - sigma) / sigma)

    def sigma(self, value: float) -> float:
        """1/(1 + e^lam)."""
        return 1.0 / (1.0 + math.exp(value))

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """Even between the ends, or from ``sigma_max`` where the start is 1."""
        if start < 1.0:
            return super().points(start, end, steps)
        if steps == 1 or end >= self.params.sigma_max:
            return [1.0 + (end - 1.0) * i / steps for i in range(steps + 1)]
        return [start, *super().points(self.params.sigma_max, end, steps - 1)]


class ThetaUniform(SigmaGrid):
    """Even in theta = atan2(1 - s, s), from one end to the other without a stop."""

    name = "theta_uniform"

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """Even between the ends; 0 and 1 are no exceptions."""
        return [sigma_of(t) for t in linear(theta(start), theta(end), steps)]


class TangentParams(GridParams):
    """Parameters of ``tangent``.

    Attributes:
        slope: How sharply the curve bends; 0 is a straight line.
        middle: Fraction of the steps at which it is steepest.
    """

    slope: float = Field(4.0, ge=0, le=100)
    middle: float = Field(0.6, gt=0, lt=1)


class Tangent(SigmaGrid):
    """An S-curve of arctangents: small steps at both ends, long ones in the middle.

    s(u) is affine in -atan(slope (u - middle)) for u from 0 to 1, scaled to its ends: the shape
    that users of chained samplers know as "bong tangent" for one of its two bends.
    """

    name = "tangent"
    Params = TangentParams

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """Scaled to the ends."""
        slope, middle = self.params.slope, self.params.middle
        u = linear(0.0, 1.0, steps)
        if slope == 0.0:
            return [start + (end - start) * v for v in u]
        bend = [-math.atan(slope * (v - middle)) for v in u]
        span = bend[0] - bend[-1]
        return [end + (start - end) * (b - bend[-1]) / span for b in bend]
