"""Denoisers whose flow is known: the truth that samplers are measured against.

Each is a plain D(x, sigma) for any shape with the batch first, element by element.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gatekit.path import Path, RectifiedFlow

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Gaussian:
    """Target N(mean, std^2) in every element: D is linear and the flow has a closed form.

    Attributes:
        mean: Of the target.
        std: Of the target.
        path: Noise path.
    """

    mean: float = 1.5
    std: float = 0.4
    path: Path = field(default_factory=RectifiedFlow)

    def variance(self, sigma: float) -> float:
        """Of x at ``sigma``: alpha^2 std^2 + sigma^2."""
        return (self.path.alpha(sigma) * self.std) ** 2 + sigma**2

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]."""
        alpha = self.path.alpha(sigma)
        gain = alpha * self.std**2 / self.variance(sigma)
        return self.mean + gain * (x - alpha * self.mean)

    def flow(self, x: Tensor, sigma: float, to: float) -> Tensor:
        """Exact solution of the flow from ``sigma`` to ``to``."""
        scale = (self.variance(to) / self.variance(sigma)) ** 0.5
        return self.path.alpha(to) * self.mean + scale * (x - self.path.alpha(sigma) * self.mean)


@dataclass
class Mixture:
    """Mixture of Gaussians in every element: D is not linear.

    Attributes:
        weights: Of the modes.
        means: Of the modes.
        stds: Of the modes.
        path: Noise path.
    """

    weights: tuple[float, ...] = (0.3, 0.4, 0.3)
    means: tuple[float, ...] = (-1.2, 0.3, 1.5)
    stds: tuple[float, ...] = (0.5, 0.7, 0.4)
    path: Path = field(default_factory=RectifiedFlow)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """E[x0 | x]."""
        import torch

        alpha = self.path.alpha(sigma)
        weights, means, stds = (
            torch.tensor(v, dtype=x.dtype, device=x.device)
            for v in (self.weights, self.means, self.stds)
        )
        variance = (alpha * stds) ** 2 + sigma**2
        z = x[..., None] - alpha * means
        share = torch.softmax(weights.log() - variance.log() / 2 - z**2 / variance / 2, -1)
        return (share * (means + alpha * stds**2 * z / variance)).sum(-1)

    def flow(self, x: Tensor, sigma: float, to: float, steps: int = 400) -> Tensor:
        """Solution of the flow by the classical Runge-Kutta method of order 4, to above 0."""
        h = (to - sigma) / steps

        def slope(x: Tensor, s: float) -> Tensor:
            return (x - self(x, s)) / s

        for i in range(steps):
            s = sigma + i * h
            k1 = slope(x, s)
            k2 = slope(x + h / 2 * k1, s + h / 2)
            k3 = slope(x + h / 2 * k2, s + h / 2)
            k4 = slope(x + h * k3, s + h)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return x


@dataclass
class Constant:
    """Always the same prediction: every sampler is exact for it."""

    value: float = 0.7

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """The value everywhere."""
        return x * 0.0 + self.value
