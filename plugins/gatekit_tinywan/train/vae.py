"""Stage 1: the autoencoder, on crops first and on whole clips at the end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatekit_tinywan.train import fit
from gatekit_tinywan.train.config import Config
from gatekit_tinywan.train.models import build_vae
from gatekit_tinywan.world import HELD_OUT_SEED, TRAIN_SEED, SceneBatch, render, sample_scenes
from gatekit_wan22.whole_clip import decode_clip, encode_clip

POOL = 16_384  # scenes drawn once; every use crops another part


def train_vae(config: Config, device: str, log: fit.Log) -> Any:
    """Return the trained autoencoder (averaged weights, float32)."""
    rank, size = fit.world()
    torch.manual_seed(config.seed)
    vae = build_vae().to(device)
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
    params = list(vae.parameters())
    opt = fit.optimizer(params, config.vae_rate, device)
    average = fit.Average(vae, 0.999)
    count = min(POOL, config.clips)
    pool = sample_scenes(TRAIN_SEED, range(rank * count, (rank + 1) * count)).to(device)
    generator = torch.Generator(device).manual_seed(1 + rank)
    l1 = torch.zeros((), device=device)

    def make(frames: int, side: int, batch: int, half: bool) -> tuple[Any, Tensor, Tensor]:
        video = torch.zeros(batch, 3, frames, side, side, device=device)
        video = video.contiguous(memory_format=torch.channels_last_3d)
        weight = torch.ones(batch, 1, frames, side, side, device=device)

        def step() -> Tensor:
            vae.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16, enabled=half, cache_enabled=False):
                mean, logvar = encode_clip(vae, video)
                mean, logvar = mean.float(), logvar.float()
                latent = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
                output = decode_clip(vae, latent).float()
            error = output - video
            loss = (weight * error.square()).mean() + l1 * (weight * error.abs()).mean()
            kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
            (loss + config.kl_weight * kl).backward()
            return loss.detach()

        return step, video, weight

    frames, side = config.vae_crop
    half = device == "cuda"
    step, video, weight = make(frames, side, config.vae_batch, half)
    run = fit.captured(step, device)
    clock = fit.Clock(config.vae_seconds)
    full = False
    progress = 0.0
    while progress < 1:
        if not full and progress >= config.vae_full_from:
            full = True
            step, video, weight = make(25, 96, max(1, config.vae_batch // 4), half)
            run = fit.captured(step, device)
        _draw(pool, video, weight, generator)
        fit.set_rate(opt, fit.learning_rate(config.vae_rate, progress))
        l1.fill_(0.02 if progress > 0.5 else 0.0)
        loss = run()
        fit.average_gradients(params)
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        average.update()
        clock.steps += 1
        if clock.steps % 10 == 0:
            progress = clock.progress
        if clock.steps % 200 == 0:
            log(stage="vae", step=clock.steps, progress=progress, loss=float(loss))
    average.store()
    psnr = measure_vae(vae, device, 64 if device == "cuda" else 8)
    log(stage="vae", done=True, steps=clock.steps, processes=size, **psnr)
    return vae


def _draw(pool: SceneBatch, video: Tensor, weight: Tensor, generator: torch.Generator) -> None:
    """Fill ``video`` (in [-1, 1]) and ``weight`` (mean 1) with random crops of random scenes."""
    batch, _, frames, side, _ = video.shape
    device = video.device
    rows = torch.randint(len(pool), (batch,), generator=generator, device=device)
    clip, matter = render(pool[rows], device=device, return_weights=True)
    # The first frame is what image-to-video hands on: it matters twice.
    matter[:, :, 0] *= 2
    if clip.shape[2:] != video.shape[2:]:
        corner = torch.rand(3, generator=generator, device=device).tolist()
        span = [clip.shape[2] - frames, clip.shape[3] - side, clip.shape[4] - side]
        t, y, x = (int(c * (s + 1)) for c, s in zip(corner, span, strict=True))
        part = (slice(None), slice(None), slice(t, t + frames), slice(y, y + side))
        clip, matter = (v[part][..., x : x + side] for v in (clip, matter))
    video.copy_(clip * 2 - 1)
    weight.copy_(matter / matter.mean())


@torch.no_grad()
def measure_vae(vae: Any, device: str, clips: int = 64) -> dict[str, float]:
    """PSNR in dB of held-out clips through the autoencoder: whole, on things, on marks."""
    total = dict.fromkeys(("psnr", "psnr_things", "psnr_marks", "psnr_first_frame"), 0.0)
    count = dict.fromkeys(total, 0.0)
    for start in range(0, clips, 8):
        scenes = sample_scenes(HELD_OUT_SEED, range(start, start + 8), split="held_out")
        video, weight = render(scenes, device=device, return_weights=True)
        output = decode_clip(vae, encode_clip(vae, video * 2 - 1)[0]) / 2 + 0.5
        error = (output.clamp(0, 1) - video).square().mean(1, keepdim=True)
        first = torch.zeros_like(weight)
        first[:, :, 0] = 1
        masks = (torch.ones_like(weight), weight > 2.5, weight > 8.0, first)
        for name, mask in zip(total, masks, strict=True):
            total[name] += float((error * mask).sum())
            count[name] += float(mask.float().sum())
    psnr = {k: -10 * torch.log10(torch.tensor(v / max(count[k], 1))) for k, v in total.items()}
    return {k: float(v) for k, v in psnr.items()}
