"""Stage 1: the autoencoder, on small crops, larger crops, and whole clips at the end."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor

from gatekit_tinywan.train import fit, fused
from gatekit_tinywan.train.config import FRAMES, HEIGHT, WIDTH, Config
from gatekit_tinywan.train.models import build_vae
from gatekit_tinywan.world import HELD_OUT_SEED, TRAIN_SEED, render, sample_scenes
from gatekit_wan22.whole_clip import decode_clip, encode_clip

POOL = 16_384  # clips rendered once; every use crops another part


def train_vae(config: Config, device: str, log: fit.Log) -> Any:
    """Return the trained autoencoder (averaged weights, float32)."""
    rank, size = fit.world()
    torch.manual_seed(config.seed)
    vae = build_vae().to(device)
    _start_narrow(vae)
    params = list(vae.parameters())
    matrices, rest = _split(params)
    opt = fit.Together(matrices, rest, device, config.vae_muon_ratio)
    average = fit.Average(vae, 0.999)
    pool = Pool(rank, min(POOL, config.clips), device)
    torch.manual_seed(1000 + config.seed + rank)
    clock, progress = fit.Clock(config.vae_seconds), 0.0
    ends = [*(stage[0] for stage in config.vae_stages[1:]), 1.0]
    sums, since = torch.zeros((), device=device), 0
    for (_, frames, side, batch), end in zip(config.vae_stages, ends, strict=True):
        compute = _Gradients(vae, config.kl_weight, (batch, frames, side), device)
        pool.draw(compute.video, compute.weight)
        kind, times = _fastest(vae, compute, opt, device) if device == "cuda" else ("off", {})
        fused.use(vae, kind)
        step = fit.Step(compute, params, opt, average, device)
        log(stage="vae", crop=[frames, side], batch=batch, layers=kind, milliseconds=times)
        if clock.steps == 0:
            clock.start_again()  # drawing the pool and compiling are not training
        while progress < end:
            pool.draw(compute.video, compute.weight)
            compute.l1.fill_(0.02 if progress > 0.5 else 0.0)
            sums += step(fit.learning_rate(config.vae_rate, progress))
            since += 1
            clock.steps += 1
            if clock.steps % 10 == 0:
                progress = clock.progress
            if clock.steps % 500 == 0 or progress >= 1:
                log(stage="vae", step=clock.steps, progress=progress, loss=float(sums) / since)
                sums.zero_()
                since = 0
    average.store()
    fused.use(vae, "off")
    psnr = measure_vae(vae, device, 64 if device == "cuda" else 8)
    log(stage="vae", done=True, steps=clock.steps, processes=size, **psnr)
    return vae


class Pool:
    """Clips and weights rendered once and held on the device."""

    def __init__(self, rank: int, count: int, device: str) -> None:
        shape = (FRAMES, HEIGHT, WIDTH)
        dtype = torch.float16 if device == "cuda" else torch.float32
        self.clips = torch.empty(count, 3, *shape, dtype=dtype, device=device)
        self.weights = torch.empty(count, 1, *shape, dtype=dtype, device=device)
        scenes = sample_scenes(TRAIN_SEED, range(rank * count, (rank + 1) * count)).to(device)
        for i in range(0, count, 64):
            part = slice(i, i + 64)
            self.clips[part], self.weights[part] = render(
                scenes[part], device=device, return_weights=True
            )
        # The first frame is what image-to-video hands on: it matters twice.
        self.weights[:, :, 0] *= 2
        self.places = torch.Generator().manual_seed(1 + rank)  # on the CPU: slices need numbers

    def draw(self, video: Tensor, weight: Tensor) -> None:
        """Fill ``video`` (in [-1, 1]) and ``weight`` (mean 1) with one random crop of all."""
        batch, size = len(video), video.shape[2:]
        rows = torch.randint(len(self.clips), (batch,), device=video.device)
        crop: list[slice] = [slice(None), slice(None)]
        for whole, part in zip(self.clips.shape[2:], size, strict=True):
            start = int(torch.randint(whole - part + 1, (), generator=self.places))
            crop.append(slice(start, start + part))
        video.copy_(self.clips[tuple(crop)][rows]).mul_(2).sub_(1)
        weight.copy_(self.weights[tuple(crop)][rows])
        weight.div_(weight.mean())


class _Gradients:
    """The loss of what is in ``video`` and its gradients; call it as often as you like."""

    def __init__(
        self, vae: Any, kl_weight: float, shape: tuple[int, int, int], device: str
    ) -> None:
        batch, frames, side = shape
        self.vae, self.kl_weight, self.device = vae, kl_weight, device
        video = torch.zeros(batch, 3, frames, side, side, device=device)
        self.video = video.contiguous(memory_format=torch.channels_last_3d)
        self.weight = torch.ones(batch, 1, frames, side, side, device=device)
        self.l1 = torch.zeros((), device=device)

    def __call__(self) -> Tensor:
        self.vae.zero_grad(set_to_none=True)
        half = self.device == "cuda"
        with torch.autocast(self.device, torch.bfloat16, enabled=half, cache_enabled=False):
            mean, logvar = encode_clip(self.vae, self.video)
            mean, logvar = mean.float(), logvar.float()
            latent = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean)
            output = decode_clip(self.vae, latent).float()
        error = output - self.video
        loss = (self.weight * error.square()).mean()
        absolute = self.l1 * (self.weight * error.abs()).mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        (loss + absolute + self.kl_weight * kl).backward()
        return loss.detach()


def _start_narrow(vae: Any) -> None:
    """Start the posterior at a deviation of 0.08: at 1 its noise hides what the mean says."""
    with torch.no_grad():
        z = vae.config.z_dim
        vae.quant_conv.weight[z:] *= 0.05
        vae.quant_conv.bias[z:] = -5.0
    for module in vae.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def _split(params: list[Any]) -> tuple[list[Any], list[Any]]:
    """(kernels with at least 16 rows and columns, everything else)."""
    kernels = [p for p in params if p.ndim >= 4 and p.shape[0] >= 16 and p[0].numel() >= 16]
    chosen = {id(p) for p in kernels}
    return kernels, [p for p in params if id(p) not in chosen]


def _fastest(
    vae: Any, compute: _Gradients, opt: fit.Together, device: str
) -> tuple[str, dict[str, float]]:
    """The kind of layers whose captured step is fastest, and every right one's milliseconds."""
    opt.set_rate(0.0)
    times: dict[str, float] = {}
    wanted: Tensor | None = None
    for kind in fused.KINDS:
        fused.use(vae, kind)
        run = fit.captured(compute, device)
        torch.manual_seed(0)
        run()
        found = torch.cat([p.grad.reshape(-1).float() for p in vae.parameters()])
        wanted = found if wanted is None else wanted
        # bfloat16 in another order; another function would differ by its own size
        if float((found - wanted).norm() / wanted.norm()) > 0.2:
            continue
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            run()
        torch.cuda.synchronize()
        times[kind] = round(100 * (time.perf_counter() - start), 2)
    return min(times, key=lambda k: times[k]), times


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
