"""Attention as torch computes it, for tensors as diffusers lays them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def by_torch(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of all queries to all keys: ``[B, S, H, D]`` and twice ``[B, K, H, D]``."""
    import torch

    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
