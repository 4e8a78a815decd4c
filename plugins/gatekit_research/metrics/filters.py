"""What several metrics look through: luminance, Gaussian windows, power spectra."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

BT709 = (0.2126, 0.7152, 0.0722)


def luma(video: Tensor) -> Tensor:
    """``[F, H, W, 3]`` -> ``[F, H, W]``."""
    return video.float() @ video.new_tensor(BT709).float()


def window(sigma: float, radius: int) -> Tensor:
    """Gaussian weights ``[2 radius + 1]`` that sum to 1."""
    import torch

    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (at / sigma) ** 2)
    return weights / weights.sum()


def separable(planes: Tensor, weights: Tensor, pad: int = 0) -> Tensor:
    """Planes ``[n, H, W]`` convolved along both axes; edges repeated by ``pad``."""
    import torch.nn.functional as functional

    x = planes[:, None]
    if pad:
        x = functional.pad(x, (pad, pad, pad, pad), mode="replicate")
    kernel = weights.to(x)
    x = functional.conv2d(x, kernel[None, None, :, None])
    return functional.conv2d(x, kernel[None, None, None, :])[:, 0]


def gaussian(video: Tensor, sigma: float) -> Tensor:
    """Each frame and channel of ``[F, H, W, 3]`` blurred; edges repeated."""
    frames, height, width, channels = video.shape
    radius = min(max(1, math.ceil(3.0 * sigma)), height - 1, width - 1)
    planes = video.permute(0, 3, 1, 2).reshape(-1, height, width)
    done = separable(planes, window(sigma, radius), radius)
    return done.reshape(frames, channels, height, width).permute(0, 2, 3, 1)


def decibels_apart(power: Tensor, reference: Tensor, floor: float = 1e-6) -> float:
    """Root mean square difference of two power spectra ``[bins]`` in dB.

    Bins below ``floor`` of the reference's strongest count as that floor: what is not there is
    not compared.
    """
    least = floor * reference.max().clamp(min=1e-12)
    level, wanted = (10.0 * (p + least).log10() for p in (power, reference))
    return float((level - wanted).square().mean().sqrt())
