"""Flicker: change that comes back, gated on motion."""

from __future__ import annotations

from typing import ClassVar

from gatekit import Metric, Sample

ALLOWED = 0.02  # share that comes back in drawn clips, whose marks pass over a pixel in few frames
MOVING = 0.006  # root mean square change from frame to frame, below which little moves


class Flicker(Metric):
    """Share of the change between frames that comes back in the next one; 0 is none, 1 is all.

    With d_t = v_(t+1) - v_t, motion carries a pixel on while flicker takes it back:
    ratio = sum relu(-d_t d_(t+1)) / sum (d_t^2 + d_(t+1)^2) / 2, of which ``ALLOWED`` is free.
    A clip that stands still flickers nowhere and is no good video: where the change is below
    ``MOVING`` the value goes to 1. Needs no reference; compare clips of like content.
    """

    name: ClassVar[str] = "flicker"
    higher_is_better = False
    perfect = 0.0
    needs = frozenset({"video"})
    detects = frozenset({"noise", "shuffle", "still"})

    def measure(self, sample: Sample) -> float:
        """1 - gate (1 - ratio)."""
        change = sample.video[1:] - sample.video[:-1]
        if len(change) < 2:
            return 1.0
        motion = float(change.square().mean().sqrt())
        back = (-change[:-1] * change[1:]).relu().sum()
        whole = (change[:-1].square() + change[1:].square()).sum() / 2.0
        ratio = float(back / whole.clamp(min=1e-12))
        gate = min(1.0, (motion / MOVING) ** 2)
        return 1.0 - gate * (1.0 - max(0.0, ratio - ALLOWED) / (1.0 - ALLOWED))
