"""The shipped files as modules to train on: what ``export`` writes, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from gatekit_tinywan.train.models import TextConditioned, build_vae
from gatekit_wan22 import layout_transformer, layout_umt5, layout_vae

EXPERTS: tuple[str, ...] = ("high", "low")


def load_vae(folder: Path) -> tuple[Any, tuple[Tensor, Tensor]]:
    """The autoencoder in float32, and mean and deviation ``[16]`` of its latents."""
    tensors, metadata = _read(folder / "tinywan_vae_fp16.safetensors")
    vae = build_vae()
    vae.load_state_dict(layout_vae.official_to_diffusers(tensors))
    mean, std = (torch.tensor(json.loads(metadata[f"latents_{n}"])) for n in ("mean", "std"))
    return vae, (mean, std)


def load_expert(folder: Path, expert: str) -> TextConditioned:
    """One expert and the text encoder, in float32."""
    model = TextConditioned()
    tensors, _ = _read(folder / f"tinywan_{expert}_fp16.safetensors")
    model.transformer.load_state_dict(layout_transformer.official_to_diffusers(tensors))
    tensors, _ = _read(folder / "tinywan_umt5_fp16.safetensors")
    named = layout_umt5.official_to_diffusers(tensors)
    named["encoder.embed_tokens.weight"] = named[layout_umt5.EMBEDDING]
    model.text.load_state_dict(named)
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {k: file.get_tensor(k).float() for k in file.keys()}, file.metadata()  # noqa: SIM118
