"""Adaptive projected guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from gatekit_basics.guidance import ClassifierFree, ScaleParams, over_sample

if TYPE_CHECKING:
    from torch import Tensor


class APGParams(ScaleParams):
    """Parameters of ``apg``.

    Attributes:
        scale: 1 is no guidance.
        start: Highest sigma that is guided; None: from the beginning.
        end: Lowest sigma that is guided.
        parallel: The paper's eta: how much of the part along the prediction stays; that part
            saturates. 1 keeps all of it.
        threshold: The paper's r: largest RMS of the difference over a sample; None: no limit.
        momentum: The paper's beta: how much of the last difference is added; negative pushes away
            from it. The paper's are negative; the guidance then alternates before it settles,
            which multistep samplers extrapolate, so 0 is the default here.
    """

    parallel: float = Field(0.0, ge=0, le=1)
    threshold: float | None = Field(None, gt=0)
    momentum: float = Field(0.0, gt=-1, lt=1)


class APG(ClassifierFree):
    """CFG on predictions of x0, its update bounded and freed of what saturates. Two passes.

    d = D(positive) - D(negative) + momentum * d_last; d <- d min(1, threshold/rms(d)); of d the
    part along D(positive) is weighted by ``parallel``: D = D(positive) + (scale - 1) d. With
    parallel 1, no threshold and momentum 0 it is ``cfg``. The momentum goes from evaluation to
    evaluation, through the run's state. The paper's threshold is a norm; a mean square does not
    depend on the size of the video.

    Source: Sadat et al., arXiv 2410.02416.
    """

    name = "apg"
    Params = APGParams

    def mix(
        self,
        positive: Tensor,
        negative: Tensor,
        x: Tensor,
        sigma: float,
        memory: Mapping[str, Any],
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The guided velocity, v = (x - D)/sigma."""
        p = self.params
        assert isinstance(p, APGParams)
        update = sigma * (negative - positive)
        if p.momentum != 0.0:
            if "apg" in memory:
                update = update + p.momentum * memory["apg"]
            memory = {**memory, "apg": update}

        axes = over_sample(update)
        if p.threshold is not None:
            rms = update.square().mean(axes, keepdim=True).sqrt()
            update = update * (p.threshold / rms.clamp_min(1e-12)).clamp_max(1.0)

        denoised = x - sigma * positive
        square = denoised.square().sum(axes, keepdim=True).clamp_min(1e-12)
        along = (update * denoised).sum(axes, keepdim=True) / square * denoised
        update = update - (1.0 - p.parallel) * along
        return positive - (self.scale - 1.0) / sigma * update, memory
