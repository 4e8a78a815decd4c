"""Known corruptions of a video, by strength: what metrics are calibrated on.

Each takes a video ``[frames, height, width, 3]`` in [0, 1] and a strength; 0 changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def blur(video: Tensor, strength: float) -> Tensor:
    """Gaussian blur of each frame, ``strength`` its standard deviation in pixels."""
    from gatekit_research.metrics.filters import gaussian

    return gaussian(video, strength) if strength > 0 else video


def noise(video: Tensor, strength: float, seed: int = 0) -> Tensor:
    """White noise of standard deviation ``strength``, another in every frame."""
    import torch

    drawn = torch.randn(video.shape, generator=torch.Generator().manual_seed(seed))
    return (video + strength * drawn.to(video)).clamp(0.0, 1.0)


def shuffle(video: Tensor, strength: float, seed: int = 0) -> Tensor:
    """A share ``strength`` of the frames change places in a circle; more strength, more of them."""
    chosen = _chosen(len(video), strength, seed)
    changed = video.clone()
    for at, source in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        changed[at] = video[source]
    return changed


def drop(video: Tensor, strength: float, seed: int = 0) -> Tensor:
    """A share ``strength`` of the frames is lost: the frame before stands still instead."""
    changed = video.clone()
    for at in sorted(_chosen(len(video), strength, seed)):
        if at > 0:
            changed[at] = changed[at - 1]
    return changed


def colour_shift(video: Tensor, strength: float) -> Tensor:
    """Hues turn around the grey axis, by 120 degrees at strength 1: red becomes green."""
    import torch

    angle = strength * 2.0 * math.pi / 3.0
    same = (1.0 + 2.0 * math.cos(angle)) / 3.0
    left = (1.0 - math.cos(angle)) / 3.0 - math.sin(angle) / math.sqrt(3.0)
    right = 1.0 - same - left
    matrix = torch.tensor([[same, left, right], [right, same, left], [left, right, same]])
    return (video @ matrix.to(video).T).clamp(0.0, 1.0)


def still(video: Tensor, strength: float) -> Tensor:
    """Motion fades: every frame is mixed with the first; at strength 1 the clip stands still."""
    return video + strength * (video[:1] - video)


def _chosen(frames: int, strength: float, seed: int) -> list[int]:
    import torch

    order: list[int] = torch.randperm(
        frames, generator=torch.Generator().manual_seed(seed)
    ).tolist()
    return order[: round(strength * frames)]


CORRUPTIONS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    f.__name__: f for f in (blur, noise, shuffle, drop, colour_shift, still)
}
