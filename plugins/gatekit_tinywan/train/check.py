"""A quick look at what was learnt, from the modules in training: UniPC steps, then the judge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import gatekit
from gatekit_basics.grids import ShiftedLinear, ShiftedLinearParams
from gatekit_basics.strategy import GridPhase
from gatekit_samplers.unipc import UniPC
from gatekit_tinywan.train.config import BOUNDARY
from gatekit_tinywan.train.models import TextConditioned
from gatekit_tinywan.vocabulary import encode_ids
from gatekit_tinywan.world import HELD_OUT_SEED, judge, sample_scenes
from gatekit_wan22.whole_clip import decode_clip


@torch.no_grad()
def generate(
    high: TextConditioned,
    low: TextConditioned,
    captions: list[str],
    device: str,
    *,
    steps: int = 20,
    shift: float = 5.0,
    scale: float = 3.0,
    batch: int = 128,
) -> Tensor:
    """Normalised latents ``[n, 16, 7, 12, 12]`` by UniPC with guidance."""
    result: list[Tensor] = []
    sigmas = ShiftedLinear(ShiftedLinearParams(shift=shift, start=1.0))(steps)
    for start in range(0, len(captions), batch):
        texts = captions[start : start + batch]
        ids, lengths = (torch.tensor(v, device=device) for v in encode_ids([*texts, ""]))
        mask = (torch.arange(ids.shape[1], device=device) < lengths[:, None]).long()
        text = high.embed(ids, mask).float()
        both = torch.cat([text[:-1], text[-1:].expand(len(texts), -1, -1)])
        generator = torch.Generator(device).manual_seed(start)
        x = torch.randn(len(texts), 16, 7, 12, 12, device=device, generator=generator)
        zeros = torch.zeros(2 * len(texts), 20, 7, 12, 12, device=device)

        def denoise(x: Tensor, sigma: float, both: Tensor = both, zeros: Tensor = zeros) -> Tensor:
            model = high if sigma >= BOUNDARY else low
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                level = torch.full((len(both),), sigma, device=device)
                v = model(torch.cat([x.repeat(2, 1, 1, 1, 1), zeros], 1), level, both).float()
            positive, negative = v.chunk(2)
            return x - sigma * (negative + scale * (positive - negative))

        # Objects, not names: the training machine need not have gatekit's plugins installed.
        phase = gatekit.FunctionPhase(
            denoise, UniPC(), sigmas, strategy=GridPhase, history=gatekit.Carry()
        )
        result.append(gatekit.sample_phases([phase], x))
    return torch.cat(result)


@torch.no_grad()
def decode(vae: Any, latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Videos ``[n, 3, F, H, W]`` in [0, 1]."""
    shape = (1, -1, 1, 1, 1)
    device = latents.device
    raw = latents * std.to(device).view(shape) + mean.to(device).view(shape)
    return torch.cat([decode_clip(vae, z).clamp(-1, 1) / 2 + 0.5 for z in raw.split(16)])


def accuracy(
    high: TextConditioned,
    low: TextConditioned,
    vae: Any,
    statistics: tuple[Tensor, Tensor],
    device: str,
    clips: int = 256,
    **options: Any,
) -> tuple[dict[str, float], Tensor]:
    """Share of held-out captions shown right, by attribute, and the videos."""
    scenes = sample_scenes(HELD_OUT_SEED, range(clips), split="held_out")
    latents = generate(high, low, scenes.captions(), device, **options)
    videos = decode(vae, latents, *statistics)
    return judge(videos, scenes.to(device)).rates(), videos
