"""UMT5's encoder: pre-norm blocks, gated feed-forward, a position bias of its own in every layer.

Written on tensors rather than on a library's module for one reason: each matrix is decoded
when its turn comes, used for every prompt, and dropped, so that 5.7 billion weights run in
the memory of one matrix. All prompts go through a layer before the next one is touched,
each alone, so that its result depends on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .header import TensorInfo
from .layout_umt5 import EMBEDDING
from .sizes_umt5 import UMT5Sizes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .mapped import MappedFile

EPS = 1e-6
FARTHEST = 128  # token distance from which on all share one bucket


class Weights:
    """Tensors of an encoder by transformers' name, decoded when asked for.

    Args:
        mapped: Their file.
        tensors: By transformers' name.
        dtype: Compute type.
        device: Where they are computed with.
        kept: Whether what was decoded stays in memory.
    """

    def __init__(
        self,
        mapped: MappedFile,
        tensors: Mapping[str, TensorInfo],
        dtype: torch.dtype,
        device: str,
        kept: bool,
    ) -> None:
        self.mapped, self.tensors, self.dtype, self.device = mapped, tensors, dtype, device
        self._kept: dict[str, Tensor] | None = {} if kept else None

    def __call__(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor in ``dtype`` (the compute type), not copied where it is stored so."""
        if self._kept is not None and name in self._kept:
            return self._kept[name]
        value = self.mapped.read(self.tensors[name], dtype or self.dtype, self.device)
        if self._kept is not None:
            self._kept[name] = value
        return value

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows ``ids`` of a matrix, ``[*ids.shape, columns]`` float32; only they are decoded."""
        import torch

        info = self.tensors[name]
        wanted, places = ids.cpu().unique(return_inverse=True)
        read = [
            self.mapped.read(_row(info, int(row)), torch.float32, self.device) for row in wanted
        ]
        return torch.cat(read)[places.to(self.device)]


def _row(info: TensorInfo, row: int) -> TensorInfo:
    """One row of a stored matrix: a row is whole blocks, in every type."""
    rows, columns = info.shape
    size, scale = info.nbytes // rows, info.scale
    if scale is not None and scale.count > 1:
        each = scale.nbytes // scale.count
        scale = replace(scale, shape=(1,), offset=scale.offset + row * each, nbytes=each)
    return replace(
        info, shape=(1, columns), offset=info.offset + row * size, nbytes=size, scale=scale
    )


def encode(
    weights: Weights, sizes: UMT5Sizes, ids: Sequence[Tensor], masks: Sequence[Tensor | None]
) -> list[Tensor]:
    """Last hidden states.

    The residual stream, norms and attention are in float32, the products with matrices in
    the compute type; in fp16 the second feed-forward matrix is used in float32, as its
    products overflow.

    Args:
        weights: The encoder's.
        sizes: Its sizes.
        ids: Token ids, each ``[B, L]``.
        masks: For each, ``[B, L]``, True where a token counts; None counts all.

    Returns:
        For each, ``[B, L, d]`` float32.
    """
    import torch
    from torch.nn.functional import gelu, linear

    full, dtype = torch.float32, weights.dtype
    inner = full if dtype == torch.float16 else dtype

    def normed(xs: list[Tensor], name: str) -> list[Tensor]:
        scale = weights(f"{name}.weight", full)
        return [x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * scale for x in xs]

    def products(xs: list[Tensor], name: str, kind: torch.dtype = dtype) -> list[Tensor]:
        matrix = weights(f"{name}.weight", kind)
        return [linear(x.to(kind), matrix) for x in xs]

    xs = [weights.rows(EMBEDDING, each) for each in ids]
    buckets = [_buckets(each.shape[1], sizes.buckets).to(weights.device) for each in ids]
    for n in range(sizes.layers):
        attention, ffn = f"encoder.block.{n}.layer.0", f"encoder.block.{n}.layer.1"
        ys = normed(xs, f"{attention}.layer_norm")
        q, k, v = (products(ys, f"{attention}.SelfAttention.{m}") for m in "qkv")
        table = weights(f"{attention}.SelfAttention.relative_attention_bias.weight", full)
        ys = [
            _attend(*qkv, table[bucket].permute(2, 0, 1), mask)
            for *qkv, bucket, mask in zip(q, k, v, buckets, masks, strict=True)
        ]
        del q, k, v
        ys = products(ys, f"{attention}.SelfAttention.o")
        xs = [x + y for x, y in zip(xs, ys, strict=True)]
        ys = normed(xs, f"{ffn}.layer_norm")
        gates = products(ys, f"{ffn}.DenseReluDense.wi_0")
        ups = products(ys, f"{ffn}.DenseReluDense.wi_1")
        ys = [
            gelu(gate.float(), approximate="tanh") * up for gate, up in zip(gates, ups, strict=True)
        ]
        del gates, ups
        ys = products(ys, f"{ffn}.DenseReluDense.wo", inner)
        xs = [x + y for x, y in zip(xs, ys, strict=True)]
    return normed(xs, "encoder.final_layer_norm")


def _attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T + bias) v, without a factor 1/sqrt(head): ``[B, L, heads * head]``."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    heads = bias.shape[0]
    q, k, v = (x.float().unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    bias = bias[None]
    if mask is not None:
        bias = bias.masked_fill(~mask[:, None, None, :], torch.finfo(torch.float32).min)
    out = scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    return out.transpose(1, 2).flatten(2)


def _buckets(length: int, buckets: int) -> Tensor:
    """Bucket of every (query, key), ``[L, L]``: half of them for keys behind the query.

    Distances count singly up to half of a direction's buckets, then by their logarithm.
    """
    import torch

    place = torch.arange(length)
    distance = place[None, :] - place[:, None]
    half = buckets // 2
    exact = half // 2
    away = distance.abs()
    # In float32, as where the weights were trained: a float64 logarithm moves the borders.
    share = torch.log(away.clamp(min=1).float() / exact) / math.log(FARTHEST / exact)
    far = (exact + (share * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(away < exact, away, far) + (distance > 0) * half
