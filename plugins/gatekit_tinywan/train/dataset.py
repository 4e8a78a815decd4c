"""Stage 2: clips and captions as normalised latents and token ids, held on the device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gatekit_tinywan.train import fit, fused
from gatekit_tinywan.vocabulary import encode_ids
from gatekit_tinywan.world import TRAIN_SEED, Codes, render, sample_scenes
from gatekit_tinywan.world.attributes import BACKGROUNDS, RELATIONS, SHAPES, SIZES, THING_WORDS
from gatekit_wan22.whole_clip import encode_clip

CLIPS_OF_A_SEED = 1 << 24
FIRST = 1 << 20  # clips of the denoiser's training begin here; the autoencoder uses earlier ones


@dataclass
class Dataset:
    """n clips; the first ``images`` of them have an image condition too."""

    latents: Tensor  # [n, 16, T, h, w] bf16, normalised
    conditions: Tensor  # [images, 16, T, h, w] bf16, normalised
    ids: Tensor  # [n, L] int64
    lengths: Tensor  # [n]
    codes: Tensor  # [n, 14] int64: every attribute of the clip
    mean: Tensor  # [16]
    std: Tensor  # [16]
    hard: Tensor | None = None  # [k] rows of clips with a small cross
    seen: Tensor | None = None  # [16, 16]: R of the loss |R e|^2; None: plain squared error


class Captions:
    """Token ids of training clips, made by other processes while the autoencoder trains."""

    def __init__(self, clips: int, offset: int) -> None:
        workers = max(1, min(8, (os.cpu_count() or 1) // 4))
        self.pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        size = 4096
        self.parts: list[Future[tuple[np.ndarray, ...]]] = [
            self.pool.submit(_captions, offset + i, min(size, clips - i))
            for i in range(0, clips, size)
        ]

    def result(self) -> tuple[Tensor, ...]:
        """(ids [n, L], lengths [n], codes [n, 14])."""
        parts = [part.result() for part in self.parts]
        self.pool.shutdown()
        return tuple(torch.from_numpy(np.concatenate(p)) for p in zip(*parts, strict=True))


def code_columns(codes: Codes) -> Tensor:
    """All attributes side by side, [n, 14] int64."""
    columns = [getattr(codes, f.name).reshape(len(codes), -1) for f in fields(Codes)]
    return torch.cat(columns, dim=1)


def hard_rows(codes: Tensor) -> Tensor:
    """Rows of ``code_columns`` in which a thing is a small cross, ``[k]``.

    Its arms are narrower than a latent's cell, so it is what is drawn wrong most. Captions may be
    drawn more often than they occur: what a caption should show stays the same.
    """
    names = [f.name for f in fields(Codes) for _ in range(2 if f.name in THING_WORDS else 1)]
    shape, size = names.index("shape"), names.index("size")
    cross = codes[:, shape : shape + 2] == SHAPES.index("cross")
    small = codes[:, size : size + 2] == SIZES.index("small")
    return (cross & small).any(1).nonzero()[:, 0]


def code_classes() -> list[int]:
    """Number of classes of each column of ``code_columns``."""
    words = {"background": BACKGROUNDS, "relation": RELATIONS, **THING_WORDS}
    pairs = {f.name: 2 if f.name in THING_WORDS else 1 for f in fields(Codes)}
    return [len(words[name]) for name, count in pairs.items() for _ in range(count)]


def _captions(start: int, count: int) -> tuple[np.ndarray, ...]:
    torch.set_num_threads(1)
    scenes = sample_scenes(TRAIN_SEED, range(start, start + count))
    ids, lengths = encode_ids(scenes.captions(vary=True))
    columns = code_columns(scenes.codes).numpy()
    return np.asarray(ids, np.int64), np.asarray(lengths, np.int64), columns


def clip_videos(offset: int, clips: int, device: str, chunk: int = 64) -> Iterator[Tensor]:
    """Videos in [-1, 1], ``chunk`` at a time."""
    for start in range(0, clips, 4096):
        count = min(4096, clips - start)
        scenes = sample_scenes(TRAIN_SEED, range(offset + start, offset + start + count))
        scenes = scenes.to(device)
        for i in range(0, count, chunk):
            yield render(scenes[i : i + chunk], device=device) * 2 - 1


@torch.no_grad()
def build_dataset(
    vae: Any,
    captions: Captions,
    clips: int,
    offset: int,
    device: str,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> Dataset:
    """Encode everything once; a clip's image condition is its first frame, then mid-grey.

    ``statistics``, mean and deviation of the latents, are measured where none are given.
    """
    latents: list[Tensor] = []
    conditions: list[Tensor] = []
    images = clips // 4  # first frames vary less than clips do
    fused.use(vae, "fused" if device == "cuda" else "off")
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        for video in clip_videos(offset, clips, device, 64 if device == "cuda" else 4):
            latents.append(encode_clip(vae, video)[0].bfloat16())
            if sum(len(c) for c in conditions) < images:
                first = torch.zeros_like(video)
                first[:, :, 0] = video[:, :, 0]
                conditions.append(encode_clip(vae, first)[0].bfloat16())
    fused.use(vae, "off")
    stacked, conditioned = torch.cat(latents), torch.cat(conditions)[:images]
    if statistics is None:
        sample = stacked[:8192].float()
        statistics = sample.mean((0, 2, 3, 4)), sample.std((0, 2, 3, 4))
        mean, std = (fit.mean_over_processes(v) for v in statistics)
    else:
        mean, std = (v.to(device) for v in statistics)
    for tensor in (stacked, conditioned):
        for part in tensor.split(4096):
            part.copy_((part.float() - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1))
    ids, lengths, codes = (part.to(device) for part in captions.result())
    return Dataset(stacked, conditioned, ids, lengths, codes, mean, std, hard_rows(codes))
