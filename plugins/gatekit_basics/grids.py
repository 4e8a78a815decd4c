"""Sigma grids: shifted linear (Wan's), Karras, exponential, explicit."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from pydantic import Field, field_validator

from gatekit import GridParams, ScheduleError, SigmaGrid


def shifted(u: float, shift: float) -> float:
    """Shift the noise level: s = shift u / (1 + (shift - 1) u): 0 stays 0, 1 stays 1."""
    return 1.0 if u == 1.0 else shift * u / (1.0 + (shift - 1.0) * u)


def unshifted(sigma: float, shift: float) -> float:
    """Inverse of ``shifted``."""
    return 1.0 if sigma == 1.0 else sigma / (shift - (shift - 1.0) * sigma)


def linear(start: float, end: float, steps: int) -> list[float]:
    """``steps + 1`` evenly spaced values."""
    return [start + (end - start) * (i / steps) for i in range(steps + 1)]


class ShiftedLinearParams(GridParams):
    """Parameters of ``shifted_linear``.

    Attributes:
        shift: Wan's sample_shift: 12 for T2V-A14B, 5 for I2V-A14B and TI2V-5B.
        start: First value before the shift. Wan's UniPC starts at 0.999, its DPM++ at 1.
    """

    shift: float = Field(5.0, gt=0)
    start: float = Field(1.0, gt=0, le=1)


class ShiftedLinear(SigmaGrid):
    """Even steps in u, s = shift u / (1 + (shift - 1) u), from ``start``. The flow models' grid.

    A stretch is even in u between its ends. With ``start: 0.999`` the values are Wan's
    linspace(0.999, 0, N + 1) after shift.
    """

    name = "shifted_linear"
    Params = ShiftedLinearParams

    @property
    def start(self) -> float:
        """``start`` after shift."""
        return shifted(self.params.start, self.params.shift)

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """Even in u."""
        shift = self.params.shift
        ends = (unshifted(start, shift), unshifted(end, shift))
        return [shifted(u, shift) for u in linear(*ends, steps)]


class ToSmallest(SigmaGrid):
    """A grid that does not reach 0 by itself: one last step goes there from ``sigma_min``."""

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """Over [end, start], or down to ``sigma_min`` and then 0."""
        if steps == 1:
            return [start, end]
        if end > 0.0:
            return self.between(start, end, steps)
        return [*self.between(start, min(self.params.sigma_min, start / 2), steps - 1), 0.0]

    @abstractmethod
    def between(self, start: float, end: float, steps: int) -> list[float]:
        """``steps + 1`` sigmas from ``start`` to ``end`` > 0."""


class RangeParams(GridParams):
    """Parameters of ``exponential``, and of ``karras`` besides ``rho``.

    Attributes:
        sigma_min: Last sigma before 0.
        sigma_max: First sigma.
    """

    sigma_min: float = Field(0.01, gt=0)
    sigma_max: float = Field(1.0, gt=0)


class _Range(ToSmallest):
    Params = RangeParams

    @property
    def start(self) -> float:
        """``sigma_max``."""
        return self.params.sigma_max


class Exponential(_Range):
    """Even steps in log sigma."""

    name = "exponential"

    def between(self, start: float, end: float, steps: int) -> list[float]:
        """Even in log sigma."""
        return [math.exp(v) for v in linear(math.log(start), math.log(end), steps)]


class KarrasParams(RangeParams):
    """Parameters of ``karras``.

    Attributes:
        rho: 7 in the paper; larger crowds small sigmas more.
        sigma_min: Last sigma before 0.
        sigma_max: First sigma.
    """

    rho: float = Field(7.0, gt=0)


class Karras(_Range):
    """Even steps in sigma^(1/rho). Source: Karras et al., arXiv 2206.00364, equation 5."""

    name = "karras"
    Params = KarrasParams

    def between(self, start: float, end: float, steps: int) -> list[float]:
        """Even in sigma^(1/rho)."""
        rho = self.params.rho
        return [r**rho for r in linear(start ** (1 / rho), end ** (1 / rho), steps)]


class ExplicitParams(GridParams):
    """Parameters of ``explicit``.

    Attributes:
        values: The sigmas themselves, descending, 0 last.
    """

    values: tuple[float, ...] = Field(min_length=2)

    @field_validator("values")
    @classmethod
    def _descending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(a <= b for a, b in pairwise(values)) or values[-1] != 0.0:
            raise ValueError("sigmas must descend strictly and end with 0")
        return values


class Explicit(SigmaGrid):
    """The sigmas that the schedule lists."""

    name = "explicit"
    Params = ExplicitParams

    @property
    def start(self) -> float:
        """The first of ``values``."""
        return self.params.values[0]

    @property
    def fixed_steps(self) -> int:
        """As many as are listed."""
        return len(self.params.values) - 1

    def points(self, start: float, end: float, steps: int) -> Sequence[float]:
        """The listed sigmas between the ends."""
        inside = [v for v in self.params.values if end < v < start]
        if len(inside) != steps - 1:
            raise ScheduleError(
                f"the listed sigmas make {len(inside) + 1} steps from {start:.6g} to {end:.6g}, "
                f"not {steps}",
                value=self.params.values,
                remedy=f"set steps to {len(inside) + 1}, or list other sigmas",
            )
        return [start, *inside, end]
