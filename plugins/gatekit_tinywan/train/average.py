"""Between two parts of training: each expert as the mean of both that errs least on new clips.

Wortsman et al., "Model soups", arXiv 2203.05482: weights that were trained on from one another lie
in one basin, and a mean of them often errs less than either. What is judged is the training's own
loss, on clips of a seed that neither has seen, with the same noise for every mean; the shares with
everything right play no part.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from gatekit_tinywan.train import denoiser, fit
from gatekit_tinywan.train.config import Config
from gatekit_tinywan.train.dataset import Dataset
from gatekit_tinywan.train.denoiser import Range
from gatekit_tinywan.train.models import TextConditioned

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the second
BATCHES, FEW = 64, 4  # on a GPU, and to try it out


def average(
    first: Mapping[str, TextConditioned],
    second: Mapping[str, TextConditioned],
    ranges: Mapping[str, Range],
    data: Dataset,
    config: Config,
    log: fit.Log,
) -> dict[str, TextConditioned]:
    """The best mean of each expert; ``first`` is changed.

    Args:
        first: Experts by name.
        second: Those that were trained on from them, or the other way round.
        ranges: Each expert's noise levels.
        data: Clips that neither was trained on.
        config: Batch, shares and seed of what is drawn.
        log: Gets the losses of every share.
    """
    found: dict[str, TextConditioned] = {}
    for name, model in first.items():
        one = {k: v.clone() for k, v in model.state_dict().items()}
        other = second[name].state_dict()
        losses: dict[float, float] = {}
        for share in SHARES:
            model.load_state_dict(between(one, other, share))
            torch.manual_seed(config.seed)
            count = BATCHES if data.latents.is_cuda else FEW
            plain, counted = denoiser.losses(model, data, ranges[name], config, count)
            losses[share] = counted
            log(average=name, share=share, loss=plain, seen=counted)
        best = min(losses, key=lambda share: losses[share])
        model.load_state_dict(between(one, other, best))
        log(average=name, taken=best)
        found[name] = model
    return found


def between(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], share: float
) -> dict[str, torch.Tensor]:
    """``(1 - share) one + share other``; what is no fraction is taken from ``one``."""
    return {
        key: torch.lerp(v, other[key].to(v), share) if v.is_floating_point() else v
        for key, v in one.items()
    }
