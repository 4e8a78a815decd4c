"""The shipped files: official Wan layout, fp16 safetensors and GGUF."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gatekit_tinywan.train.quantise import MIXES, write_gguf
from gatekit_tinywan.vocabulary import TEXT_LENGTH, build_tokenizer
from gatekit_wan22 import layout_transformer, layout_umt5, layout_vae


def export_expert(
    folder: Path,
    expert: str,
    transformer: Any,
    importance: Mapping[str, np.ndarray] | None = None,
) -> list[Path]:
    """``tinywan_EXPERT_fp16.safetensors`` and a GGUF file for each mix."""
    named = layout_transformer.diffusers_to_official(transformer.state_dict())
    named = {k: v.detach().half().cpu().contiguous() for k, v in named.items()}
    files = [_safetensors(folder / f"tinywan_{expert}_fp16.safetensors", named, {})]
    arrays = {k: v.float().numpy() for k, v in named.items()}
    for mix in MIXES:
        files.append(folder / f"tinywan_{expert}_{mix}.gguf")
        write_gguf(files[-1], arrays, mix, importance)
    return files


def export_vae(folder: Path, vae: Any, mean: Tensor, std: Tensor) -> Path:
    """``tinywan_vae_fp16.safetensors``; the latent statistics are in its metadata."""
    named = layout_vae.diffusers_to_official(vae.state_dict())
    metadata = {
        "latents_mean": json.dumps([round(float(v), 6) for v in mean]),
        "latents_std": json.dumps([round(float(v), 6) for v in std]),
    }
    return _safetensors(folder / "tinywan_vae_fp16.safetensors", named, metadata)


def export_text_encoder(folder: Path, text: Any) -> Path:
    """``tinywan_umt5_fp16.safetensors``; tokenizer and text length are in its metadata."""
    named = layout_umt5.diffusers_to_official(text.state_dict())
    metadata = {"tokenizer_json": build_tokenizer().to_str(), "text_length": str(TEXT_LENGTH)}
    return _safetensors(folder / "tinywan_umt5_fp16.safetensors", named, metadata)


def _safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> Path:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    named = {k: v.detach().half().cpu().contiguous() for k, v in tensors.items()}
    save_file(named, path, metadata={"format": "pt", **metadata})
    return path
