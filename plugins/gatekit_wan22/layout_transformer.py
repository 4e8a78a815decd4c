"""Names of the tensors of a Wan transformer: the official ones, and those of diffusers.

Only names differ between the two layouts; no tensor is split, merged or transposed. The
module stands alone (standard library only), so that training scripts can use it anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

PREFIXES = ("model.diffusion_model.", "diffusion_model.")

_TOP = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_BLOCK = {
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
for _theirs, _ours in (("self_attn", "attn1"), ("cross_attn", "attn2")):
    for _a, _b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0")):
        _BLOCK[f"{_theirs}.{_a}"] = f"{_ours}.{_b}"
    for _a in ("norm_q", "norm_k"):
        _BLOCK[f"{_theirs}.{_a}"] = f"{_ours}.{_a}"
_BLOCK |= {
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
}
_TOP_BACK = {b: a for a, b in _TOP.items()}
_BLOCK_BACK = {b: a for a, b in _BLOCK.items()}

_BARE = ("modulation", "scale_shift_table")  # tensors without a leaf
_IN_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def strip_prefix(name: str) -> str:
    """Take off the prefix that ComfyUI's files carry."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name


def _rename(name: str, top: Mapping[str, str], block: Mapping[str, str]) -> str | None:
    found = _IN_BLOCK.fullmatch(name)
    inner, table = (found[2], block) if found else (name, top)
    stem, dot, leaf = inner, "", ""
    if inner.endswith((".weight", ".bias")):
        stem, dot, leaf = inner.rpartition(".")
    if stem not in table or stem.endswith(_BARE) == bool(leaf):
        return None
    prefix = f"blocks.{found[1]}." if found else ""
    return f"{prefix}{table[stem]}{dot}{leaf}"


def to_diffusers(name: str) -> str | None:
    """Diffusers' name of an official tensor name; None if it is no Wan name."""
    return _rename(name, _TOP, _BLOCK)


def to_official(name: str) -> str | None:
    """Official name of a diffusers tensor name; None if it is no Wan name."""
    return _rename(name, _TOP_BACK, _BLOCK_BACK)


def official_to_diffusers(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no official Wan names stay as they are."""
    return {
        to_diffusers(n) or n: v for n, v in ((strip_prefix(k), v) for k, v in state_dict.items())
    }


def diffusers_to_official(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no diffusers Wan names stay as they are."""
    return {to_official(name) or name: value for name, value in state_dict.items()}
