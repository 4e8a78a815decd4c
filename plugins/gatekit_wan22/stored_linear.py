"""A linear layer that keeps its weight as the file stores it and decodes it when it is used."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@cache
def stored_linear_class() -> type[nn.Module]:
    """The class ``StoredLinear``; made on first use because torch takes seconds to import."""
    import torch
    from torch import nn

    from .operators import linear, operators

    ops = operators()

    class StoredLinear(nn.Module):
        """y = x W^T + b with W in GGUF blocks or fp8; one decoded matrix lives at a time.

        Args:
            stored: The stored bytes, one-dimensional uint8.
            type_name: Type of them, such as ``Q2_K`` or ``F8_E4M3``.
            shape: ``(out, in)``.
            bias: ``[out]`` in the compute type, or None.
            dtype: Compute type, which x has too; decoding is in float32 whatever it is.
            scale: float32 ``[1]`` or ``[out]`` that the decoded weight is multiplied by, or None.
        """

        stored: Tensor
        scale: Tensor | None

        def __init__(
            self,
            stored: Tensor,
            type_name: str,
            shape: tuple[int, int],
            bias: Tensor | None,
            dtype: torch.dtype,
            scale: Tensor | None = None,
        ) -> None:
            super().__init__()
            self.register_buffer("stored", stored, persistent=False)
            self.register_buffer("scale", scale, persistent=False)
            self.type_name, self.dtype = type_name, dtype
            self.out_features, self.in_features = shape
            self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

        def decoded(self) -> Tensor:
            """W ``[out, in]`` in the compute type."""
            count = self.out_features * self.in_features
            weight = ops.dequantise(self.stored, self.type_name, count, self.dtype, self.scale)
            return weight.view(self.out_features, self.in_features)

        def forward(self, x: Tensor) -> Tensor:
            given = (x, self.stored, self.type_name, self.out_features, self.bias, self.scale)
            # The operator is for compilers and gradients; passing through it takes 90 us.
            graph = torch.compiler.is_compiling() or (x.requires_grad and torch.is_grad_enabled())
            return ops.stored_linear(*given) if graph else linear(*given)

        def extra_repr(self) -> str:
            return f"{self.in_features} -> {self.out_features}, {self.type_name}"

    return StoredLinear


def new_stored_linear(*args: Any) -> nn.Module:
    """Make a ``StoredLinear``; the arguments are its."""
    return stored_linear_class()(*args)
