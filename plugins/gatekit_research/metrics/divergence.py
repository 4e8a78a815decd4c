"""Where along the path a run leaves its reference."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from gatekit import Metric, Sample

if TYPE_CHECKING:
    from torch import Tensor


class X0Divergence(Metric):
    """Difference of the predictions of x0, sigma by sigma.

    At each step's start the root mean square of D - D_ref, the reference's prediction taken
    linearly in sigma between its own steps. The value is the mean over sigma.
    """

    name: ClassVar[str] = "x0_divergence"
    higher_is_better = False
    perfect = 0.0
    needs = frozenset({"trace", "reference"})

    def curve(self, sample: Sample) -> list[tuple[float, float]]:
        """Pairs (sigma, rms); sigmas that the reference does not reach are left out."""
        known = sorted(sample.reference.trace, key=lambda pair: pair[0])
        found: list[tuple[float, float]] = []
        for sigma, denoised in sample.trace:
            if known and known[0][0] - 1e-9 <= sigma <= known[-1][0] + 1e-9:
                apart = denoised.float() - between(known, sigma).to(denoised.device)
                found.append((sigma, float(apart.square().mean().sqrt())))
        return found

    def measure(self, sample: Sample) -> float:
        """Mean of the curve over sigma, by trapezoids."""
        curve = sorted(self.curve(sample))
        if len(curve) < 2:
            return curve[0][1] if curve else float("nan")
        area = sum((s1 - s0) * (v0 + v1) / 2.0 for (s0, v0), (s1, v1) in pairwise(curve))
        return area / (curve[-1][0] - curve[0][0]) if curve[-1][0] > curve[0][0] else curve[0][1]


def between(known: list[tuple[float, Tensor]], sigma: float) -> Tensor:
    """D at ``sigma`` from pairs of rising sigma, linear between them, the ends held."""
    sigmas = [s for s, _ in known]
    above = min(bisect_left(sigmas, sigma), len(known) - 1)
    below = max(above - 1, 0)
    (s0, d0), (s1, d1) = known[below], known[above]
    share = 1.0 if s1 == s0 else min(max((sigma - s0) / (s1 - s0), 0.0), 1.0)
    return d1.float() if share == 1.0 else d0.float() + share * (d1.float() - d0.float())
