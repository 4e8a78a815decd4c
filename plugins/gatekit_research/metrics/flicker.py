"""Flicker: what comes and goes without having moved there; gated on motion."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gatekit import Metric, Sample

if TYPE_CHECKING:
    from torch import Tensor

REACH = 0.04  # of the shorter side: how far a thing may move from frame to frame
MOVING = 0.01  # root mean square change from frame to frame, below which little moves


class Flicker(Metric):
    """Part of the change between frames that no motion explains; 0 is none, 1 is all.

    A pixel flickers by as much as it lies outside everything that its surroundings show in the
    frames before and after; what moves no further than ``REACH`` lies inside. The value is the
    root of that energy over the energy of all change. A clip that stands still flickers nowhere
    and is no good video: where the change is below ``MOVING``, the value goes to 1.
    """

    name: ClassVar[str] = "flicker"
    higher_is_better = False
    perfect = 0.0
    needs = frozenset({"video"})
    detects = frozenset({"noise", "shuffle", "still"})

    def measure(self, sample: Sample) -> float:
        """1 - gate (1 - sqrt(E_outside / E_change))."""
        video = sample.video
        if len(video) < 3:
            return 1.0
        change = (video[1:] - video[:-1]).square().flatten(1).mean(1)
        outside = _outside(video).square().mean()
        # Of the two changes around a frame the lesser bounds what can lie outside.
        ratio = float((outside / ((change[1:] + change[:-1]).mean() / 2.0).clamp(min=1e-12)).sqrt())
        gate = min(1.0, float(change.mean()) / MOVING**2)
        return 1.0 - gate * (1.0 - min(ratio, 1.0))


def _outside(video: Tensor) -> Tensor:
    """How far each pixel of all but the first and last frame lies outside its surroundings."""
    import torch
    import torch.nn.functional as functional

    reach = max(1, round(REACH * min(video.shape[1:3])))
    planes = video.permute(0, 3, 1, 2)
    size = (2 * reach + 1, 1), (reach, 0)
    wide = (1, 2 * reach + 1), (0, reach)

    def highest(x: Tensor) -> Tensor:
        for kernel, padding in (size, wide):
            x = functional.max_pool2d(x, kernel, stride=1, padding=padding)
        return x

    high, low = highest(planes), -highest(-planes)
    above = planes[1:-1] - torch.maximum(high[:-2], high[2:])
    below = torch.minimum(low[:-2], low[2:]) - planes[1:-1]
    return torch.maximum(above, below).clamp(min=0.0)
