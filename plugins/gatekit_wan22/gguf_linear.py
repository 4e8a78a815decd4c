"""A linear layer that keeps its GGUF blocks and decodes them when it is used."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@cache
def gguf_linear_class() -> type[nn.Module]:
    """The class ``GGUFLinear``; made on first use because torch takes seconds to import."""
    from torch import nn

    from .dequantise import dequantise

    class GGUFLinear(nn.Module):
        """y = x W^T + b with W stored in blocks; one decoded matrix lives at a time.

        Args:
            blocks: The stored bytes, one-dimensional uint8.
            type_name: GGML type, such as ``Q2_K``.
            shape: ``(out, in)``.
            bias: ``[out]`` in the compute type, or None.
            dtype: Compute type; decoding is in float32 whatever it is.
        """

        blocks: Tensor

        def __init__(
            self,
            blocks: Tensor,
            type_name: str,
            shape: tuple[int, int],
            bias: Tensor | None,
            dtype: torch.dtype,
        ) -> None:
            super().__init__()
            self.register_buffer("blocks", blocks, persistent=False)
            self.type_name, self.dtype = type_name, dtype
            self.out_features, self.in_features = shape
            self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

        def decoded(self) -> Tensor:
            """W ``[out, in]`` in the compute type."""
            weight = dequantise(self.blocks, self.type_name, self.dtype)
            return weight.view(self.out_features, self.in_features)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.decoded(), self.bias)

        def extra_repr(self) -> str:
            return f"{self.in_features} -> {self.out_features}, {self.type_name}"

    return GGUFLinear


def new_gguf_linear(*args: Any) -> nn.Module:
    """Make a ``GGUFLinear``; the arguments are its."""
    return gguf_linear_class()(*args)
