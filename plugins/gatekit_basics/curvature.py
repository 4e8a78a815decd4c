"""The grid that a model asks for itself: steps short where its prediction bends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from pydantic import Field, field_validator

from gatekit import GridParams
from gatekit_basics.grids import ToSmallest

FINE = 2048  # points of the integral; its error is far below a step
EARLY = 0.985  # above it the density stays what it is there


def theta(sigma: float) -> float:
    """atan2(1 - s, s): 0 at s = 1, pi/2 at s = 0."""
    return math.atan2(1.0 - sigma, sigma)


def sigma_of(angle: float) -> float:
    """Inverse of ``theta``."""
    return math.cos(angle) / (math.cos(angle) + math.sin(angle))


def log_profile(sigmas: Sequence[float], bends: Sequence[float], width: int = 4) -> list[float]:
    """Smooth logarithm of the node density, from second derivatives of D in theta.

    A second-order method's error over a step h at theta is about h^3 |D''| |ds/dtheta|/s. D keeps
    what the state shows (x = alpha D + s n), so an error dx moves the end of the run by up to
    dx/alpha: at high noise a small error decides what is made. Their product is shared equally
    where the density of nodes is its cube root (equidistribution; de Boor, "Good approximation by
    splines with variable knots", 1973). Above EARLY that would take most nodes of a short run,
    where the state shows next to nothing and what is missed can still be made up for. There the
    density stays what it is at EARLY.

    Args:
        sigmas: Where ``bends`` were measured, in (0, 1).
        bends: Root mean square of D'' over the latent, at least 0.
        width: Points on each side that a value is averaged with, in the logarithm.
    """
    least = max(max(bends, default=0.0) * 1e-6, 1e-30)
    logs = [
        math.log(max(bend, least) * _speed(theta(sigma))) / 3.0
        for sigma, bend in zip(sigmas, bends, strict=True)
    ]
    windows = (logs[max(0, i - width) : i + width + 1] for i in range(len(logs)))
    smooth = [sum(window) / len(window) for window in windows]
    late = next((i for i, sigma in enumerate(sigmas) if sigma <= EARLY), len(sigmas) - 1)
    return [smooth[max(i, late)] for i in range(len(smooth))]


def _speed(angle: float) -> float:
    """|ds/dtheta|/(s alpha) = 1/(cos sin): alike at both ends of the path."""
    return 1.0 / (math.cos(angle) * math.sin(angle))


class CurvatureParams(GridParams):
    """Parameters of ``curvature``; ``gatekit curvature`` measures and writes them.

    Attributes:
        profile: Pairs (sigma, density), descending in sigma; only ratios of densities matter.
        sigma_min: Last sigma before 0, where a stretch ends at 0.
    """

    profile: tuple[tuple[float, float], ...] = Field(min_length=2)
    sigma_min: float = Field(0.05, gt=0, lt=1)

    @field_validator("profile")
    @classmethod
    def _usable(cls, profile: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        sigmas = [sigma for sigma, _ in profile]
        if any(a <= b for a, b in pairwise(sigmas)) or not 0.0 <= sigmas[-1] < sigmas[0] <= 1.0:
            raise ValueError("sigmas of a profile descend strictly within [0, 1]")
        if any(density <= 0.0 for _, density in profile):
            raise ValueError("densities of a profile are above 0")
        return profile


class Curvature(ToSmallest):
    """Nodes so that the integral of a measured density over theta is shared equally.

    The density is interpolated in its logarithm, and constant beyond the ends of the profile.
    """

    name = "curvature"
    Params = CurvatureParams

    def between(self, start: float, end: float, steps: int) -> list[float]:
        """Equidistributed."""
        low, high = theta(start), theta(end)
        angles = [low + (high - low) * i / FINE for i in range(FINE + 1)]
        densities = [self.density(angle) for angle in angles]
        areas = [0.0, *accumulate((a + b) / 2 for a, b in pairwise(densities))]
        nodes: list[float] = []
        i = 0
        for step in range(steps + 1):
            target = areas[-1] * step / steps
            while i < FINE - 1 and areas[i + 1] < target:
                i += 1
            part = (target - areas[i]) / (areas[i + 1] - areas[i])
            nodes.append(sigma_of(angles[i] + (angles[1] - angles[0]) * part))
        return nodes

    def density(self, angle: float) -> float:
        """Relative density of nodes at ``angle``."""
        profile = self.params.profile
        if angle <= theta(profile[0][0]):
            return profile[0][1]
        for (above, first), (below, second) in pairwise(profile):
            left, right = theta(above), theta(below)
            if angle <= right:
                part = (angle - left) / (right - left)
                return first ** (1.0 - part) * second**part
        return profile[-1][1]
