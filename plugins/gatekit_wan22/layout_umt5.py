"""Names of the tensors of a UMT5 encoder: Wan's official ones, and those of transformers.

"diffusers" in the function names is for symmetry with the other layouts; the module is
transformers' ``UMT5EncoderModel``. It stands alone (standard library only), so that
training scripts can use it anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

EMBEDDING = "shared.weight"
_COPIES = ("encoder.embed_tokens.weight",)  # tied to EMBEDDING; some files hold it twice

_TOP = {"token_embedding.weight": EMBEDDING, "norm.weight": "encoder.final_layer_norm.weight"}
_BLOCK = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}
_TOP_BACK = {b: a for a, b in _TOP.items()}
_BLOCK_BACK = {b: a for a, b in _BLOCK.items()}


def to_diffusers(name: str) -> str | None:
    """Transformers' name of an official tensor name; None if it is no UMT5 name."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)\.weight", name)
    if found and found[2] in _BLOCK:
        return f"encoder.block.{found[1]}.{_BLOCK[found[2]]}.weight"
    return _TOP.get(name)


def to_official(name: str) -> str | None:
    """Official name of a transformers tensor name; None if it is no UMT5 name."""
    found = re.fullmatch(r"encoder\.block\.(\d+)\.(.+)\.weight", name)
    if found and found[2] in _BLOCK_BACK:
        return f"blocks.{found[1]}.{_BLOCK_BACK[found[2]]}.weight"
    return _TOP_BACK.get(name)


def drop_copies(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Leave out the second copy of the token embedding, or rename it if it is the only one."""
    out = {k: v for k, v in state_dict.items() if k not in _COPIES}
    for name in _COPIES:
        if name in state_dict:
            out.setdefault(EMBEDDING, state_dict[name])
    return out


def official_to_diffusers(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no official UMT5 names stay as they are."""
    return {to_diffusers(name) or name: value for name, value in state_dict.items()}


def diffusers_to_official(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no transformers UMT5 names stay as they are."""
    kept = drop_copies(state_dict)
    return {to_official(name) or name: value for name, value in kept.items()}
