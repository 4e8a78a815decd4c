"""Sizes of a UMT5 encoder, read off the shapes of its tensors, every one accounted for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gatekit import WeightsError

from . import layout_umt5
from .header import Header, TensorInfo
from .sizes import check_types, compare_shapes, few

# A whole translation model has a second half, which the encoder does not need.
_DECODER = ("decoder.", "dec.", "lm_head.", "output.weight")
_TOKENIZER = "spiece_model"


@dataclass(frozen=True)
class UMT5Sizes:
    """Sizes of a UMT5 encoder."""

    vocabulary: int
    dim: int
    ffn_dim: int
    layers: int
    heads: int
    head_dim: int
    buckets: int

    def __str__(self) -> str:
        return f"UMT5 encoder, {self.layers} layers x {self.dim}, vocabulary {self.vocabulary}"


def umt5_tensors(header: Header) -> dict[str, TensorInfo]:
    """An encoder's tensors by transformers name, without tokenizer and decoder."""
    kept = {
        n: t for n, t in header.tensors.items() if n != _TOKENIZER and not n.startswith(_DECODER)
    }
    renamed = layout_umt5.official_to_diffusers(layout_umt5.gguf_to_diffusers(kept))
    return layout_umt5.drop_copies(renamed)


def umt5_shapes(s: UMT5Sizes) -> dict[str, tuple[int, ...]]:
    """Transformers' name -> shape of every tensor an encoder of these sizes has."""
    inner = s.heads * s.head_dim
    shapes: dict[str, tuple[int, ...]] = {
        layout_umt5.EMBEDDING: (s.vocabulary, s.dim),
        "encoder.final_layer_norm.weight": (s.dim,),
    }
    for n in range(s.layers):
        attention, ffn = (f"encoder.block.{n}.layer.{half}" for half in (0, 1))
        shapes |= {f"{attention}.SelfAttention.{m}.weight": (inner, s.dim) for m in "qkv"}
        shapes[f"{attention}.SelfAttention.o.weight"] = (s.dim, inner)
        bias = f"{attention}.SelfAttention.relative_attention_bias.weight"
        shapes[bias] = (s.buckets, s.heads)
        shapes[f"{attention}.layer_norm.weight"] = shapes[f"{ffn}.layer_norm.weight"] = (s.dim,)
        for matrix in ("wi_0", "wi_1"):
            shapes[f"{ffn}.DenseReluDense.{matrix}.weight"] = (s.ffn_dim, s.dim)
        shapes[f"{ffn}.DenseReluDense.wo.weight"] = (s.dim, s.ffn_dim)
    return shapes


def read_umt5_sizes(header: Header) -> UMT5Sizes:
    """Sizes of the UMT5 encoder in a file, every tensor accounted for.

    Raises:
        WeightsError: The file holds no UMT5 encoder, or not all of one.
    """
    tensors = umt5_tensors(header)
    block = "encoder.block.{}.layer"
    bias = block + ".0.SelfAttention.relative_attention_bias.weight"
    try:
        vocabulary, dim = tensors[layout_umt5.EMBEDDING].shape
        buckets, heads = tensors[bias.format(0)].shape
        numbers = [int(m[1]) for n in tensors if (m := re.match(r"encoder\.block\.(\d{1,4})\.", n))]
        sizes = UMT5Sizes(
            vocabulary=vocabulary,
            dim=dim,
            ffn_dim=tensors[f"{block.format(0)}.1.DenseReluDense.wi_0.weight"].shape[0],
            layers=max(numbers) + 1,
            heads=heads,
            head_dim=tensors[f"{block.format(0)}.0.SelfAttention.q.weight"].shape[0] // heads,
            buckets=buckets,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        found = few(header.tensors)[:200] or "none"
        raise WeightsError(
            f"not a UMT5 text encoder: {len(header.tensors)} tensors, such as {found}",
            where=str(header.path),
            remedy="give the file of a UMT5 text encoder",
        ) from error
    if sizes.layers > 1 and not any(bias.format(n) in tensors for n in range(1, sizes.layers)):
        raise WeightsError(
            "a T5 encoder with one position bias for all layers, as Flux and SD3 use; Wan's has "
            "one in every layer",
            where=str(header.path),
            remedy="give UMT5-XXL (umt5_xxl)",
        )
    check_types(header, tensors)
    compare_shapes(header, tensors, umt5_shapes(sizes))
    return sizes
