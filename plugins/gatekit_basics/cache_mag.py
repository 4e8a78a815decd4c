"""The step cache ``mag``: a measured curve tells when what the blocks add changes little."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from gatekit import Block, Cached
from gatekit_basics.caches import SkipParams, Skipping, run

if TYPE_CHECKING:
    from torch import Tensor

Curve = tuple[tuple[float, float], ...]
POINTS = 2  # that a profile has at least


class MagParams(SkipParams):
    """Parameters of ``mag``; ``gatekit step-cache --profile`` measures the curve.

    Attributes:
        profile: Pairs (sigma, magnitude) of what all blocks add, descending in sigma; only ratios
            of magnitudes matter.
        max_skips: Most passes skipped in a row.
    """

    profile: Curve = Field(min_length=POINTS)
    max_skips: int | None = Field(3, ge=1)

    @field_validator("profile")
    @classmethod
    def _usable(cls, profile: Curve) -> Curve:
        sigmas = [sigma for sigma, _ in profile]
        if any(a <= b for a, b in pairwise(sigmas)) or not 0.0 < sigmas[-1] < sigmas[0] <= 1.0:
            raise ValueError("sigmas of a profile descend strictly within (0, 1]")
        if any(magnitude <= 0.0 for _, magnitude in profile):
            raise ValueError("magnitudes of a profile are above 0")
        return profile


class Mag(Skipping):
    """Reuses what all blocks added, while the sum of expected errors stays below a threshold.

    With m(sigma) the magnitude of what the blocks add and s' the sigma of the last pass that ran
    whole, a pass at s is expected to be off by |1 - m(s)/m(s')|; the errors of passes skipped in a
    row add up, and the next one runs whole where their sum would exceed ``threshold``. Decided by
    sigma alone: nothing waits for the device, and a batch skips what each of its samples skips.

    Source: MagCache (Ma et al., arXiv 2506.09045), whose ratios belong to the steps of one grid;
    here they are a curve over sigma, so that any grid and sampler may use it.
    """

    name = "mag"
    Params = MagParams

    def through(
        self, blocks: Sequence[Block], hidden: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> Cached:
        """All blocks, or what they added."""
        if self.may_skip(sigma, memory) and memory["rest"].shape == hidden.shape:
            ratio = self.magnitude(sigma) / self.magnitude(memory["whole"])
            error = memory["error"] + abs(1.0 - ratio)
            if error <= self.params.threshold:
                counted = {"error": error, "sigma": sigma, "skips": memory["skips"] + 1}
                return Cached(hidden + memory["rest"], {**memory, **counted}, skipped=True)
        out = run(blocks, hidden)
        kept = {"rest": out - hidden, "whole": sigma, "error": 0.0, "sigma": sigma, "skips": 0}
        return Cached(out, kept)

    def magnitude(self, sigma: float) -> float:
        """m(sigma), interpolated in its logarithm; constant beyond the ends of the profile."""
        profile: Curve = self.params.profile
        if sigma >= profile[0][0]:
            return profile[0][1]
        for (above, first), (below, second) in pairwise(profile):
            if sigma >= below:
                part = (above - sigma) / (above - below)
                return math.exp((1.0 - part) * math.log(first) + part * math.log(second))
        return profile[-1][1]
