"""Names of the tensors of a UMT5 encoder: Wan's official ones, transformers', llama.cpp's.

"diffusers" in the function names is for symmetry with the other layouts; the module is
transformers' ``UMT5EncoderModel``. The third column is what GGUF files use. It stands
alone (standard library only), so that training scripts can use it anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

EMBEDDING = "shared.weight"
_COPIES = ("encoder.embed_tokens.weight",)  # tied to EMBEDDING; some files hold it twice

# transformers, Wan, GGUF; every name ends in ".weight"
_TOP = (
    ("shared", "token_embedding", "token_embd"),
    ("encoder.final_layer_norm", "norm", "enc.output_norm"),
)
_BLOCK = (
    ("layer.0.layer_norm", "norm1", "attn_norm"),
    ("layer.0.SelfAttention.q", "attn.q", "attn_q"),
    ("layer.0.SelfAttention.k", "attn.k", "attn_k"),
    ("layer.0.SelfAttention.v", "attn.v", "attn_v"),
    ("layer.0.SelfAttention.o", "attn.o", "attn_o"),
    ("layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding", "attn_rel_b"),
    ("layer.1.layer_norm", "norm2", "ffn_norm"),
    ("layer.1.DenseReluDense.wi_0", "ffn.gate.0", "ffn_gate"),
    ("layer.1.DenseReluDense.wi_1", "ffn.fc1", "ffn_up"),
    ("layer.1.DenseReluDense.wo", "ffn.fc2", "ffn_down"),
)
_PREFIX = ("encoder.block.", "blocks.", "enc.blk.")
_DIFFUSERS, _OFFICIAL, _GGUF = 0, 1, 2


def _rename(name: str, source: int, target: int) -> str | None:
    """A name of one layout in another; None if the first does not know it."""
    stem = name.removesuffix(".weight")
    if stem == name:
        return None
    for row in _TOP:
        if stem == row[source]:
            return f"{row[target]}.weight"
    found = re.fullmatch(re.escape(_PREFIX[source]) + r"(\d+)\.(.+)", stem)
    for row in _BLOCK:
        if found and found[2] == row[source]:
            return f"{_PREFIX[target]}{found[1]}.{row[target]}.weight"
    return None


def to_diffusers(name: str) -> str | None:
    """Transformers' name of an official tensor name; None if it is no UMT5 name."""
    return _rename(name, _OFFICIAL, _DIFFUSERS)


def to_official(name: str) -> str | None:
    """Official name of a transformers tensor name; None if it is no UMT5 name."""
    return _rename(name, _DIFFUSERS, _OFFICIAL)


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


def gguf_to_diffusers(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no UMT5 names of a GGUF stay as they are."""
    return {_rename(n, _GGUF, _DIFFUSERS) or n: value for n, value in state_dict.items()}


def diffusers_to_gguf(state_dict: Mapping[str, T]) -> dict[str, T]:
    """Rename a state dict; names that are no transformers UMT5 names stay as they are."""
    kept = drop_copies(state_dict)
    return {_rename(n, _DIFFUSERS, _GGUF) or n: value for n, value in kept.items()}
