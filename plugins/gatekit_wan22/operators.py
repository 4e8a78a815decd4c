"""Stored weights as operators of torch, so that ``torch.compile`` keeps whole graphs.

``gatekit::dequantise`` and ``gatekit::stored_linear`` are opaque to the compiler: it knows their
result's shape and type and calls them as they are. What runs is chosen here, by device and size:

| blocks are | tokens | what runs |
|---|---|---|
| on a GPU, of a type with a kernel | up to ``FEW_TOKENS``, in bf16 or fp16 | ``kernels.product`` |
| on a Hopper, of ``fused.TYPES`` | ``fused.USED``, in bf16 or fp16 | ``kernels.fused`` |
| on a GPU, of a type with a kernel | more | decoded into the shared buffer, then torch's product |
| elsewhere, or of another type, or fp8 | any | the same, decoded by torch's operations |
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .dequantise import dequantise
from .kernels import kernel_kind
from .scratch import scratch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .kernels.kinds import Kind

FEW_TOKENS = 1  # up to here W is multiplied as it is read: at 64, decoding first was faster (H100)


def linear(
    x: Tensor,
    stored: Tensor,
    type_name: str,
    rows: int,
    bias: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Y = x W^T + b, with W ``[rows, in]`` stored and rounded to x's type."""
    import torch

    columns = x.shape[-1]
    if scale is None and x.dtype in (torch.bfloat16, torch.float16):
        kind = kernel_kind(type_name, stored.device)
        y = (
            None
            if kind is None
            else fused_product(x.reshape(-1, columns), stored, kind, rows, bias)
        )
        if y is not None:
            return y.view(*x.shape[:-1], rows)
    held = scratch(rows * columns, x.dtype, stored.device)
    weight = dequantise(stored, type_name, x.dtype, scale, out=held)
    return torch.nn.functional.linear(x, weight.view(rows, columns), bias)


def fused_product(
    x: Tensor, stored: Tensor, kind: Kind, rows: int, bias: Tensor | None
) -> Tensor | None:
    """Y ``[tokens, rows]`` with W decoded as it is multiplied; None where that is slower."""
    columns = x.shape[-1]
    tokens = x.numel() // columns
    if tokens <= FEW_TOKENS:
        from .kernels.product import product

        return product(x.reshape(-1, columns), stored, kind, rows, bias)
    from .kernels.fused import fused_or_none, tile_of

    tile = tile_of(tokens, columns, kind, stored.device)
    return tile and fused_or_none(x.reshape(-1, columns), stored, kind, rows, bias, tile)


@cache
def operators() -> Any:
    """Both operators, registered when first asked for: ``dequantise`` and ``stored_linear``."""
    import torch

    @torch.library.custom_op(
        "gatekit::dequantise",
        mutates_args=(),
        schema="(Tensor stored, str type_name, int count, ScalarType dtype, Tensor? scale)"
        " -> Tensor",
    )
    def decode(
        stored: Tensor, type_name: str, count: int, dtype: torch.dtype, scale: Tensor | None
    ) -> Tensor:
        out = torch.empty(count, dtype=dtype, device=stored.device)
        return dequantise(stored, type_name, dtype, scale, out=out)

    @decode.register_fake
    def _(
        stored: Tensor, type_name: str, count: int, dtype: torch.dtype, scale: Tensor | None
    ) -> Tensor:
        return stored.new_empty(count, dtype=dtype)

    @torch.library.custom_op(
        "gatekit::stored_linear",
        mutates_args=(),
        schema="(Tensor x, Tensor stored, str type_name, SymInt rows, Tensor? bias, Tensor? scale)"
        " -> Tensor",
    )
    def stored_linear(
        x: Tensor,
        stored: Tensor,
        type_name: str,
        rows: int,
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> Tensor:
        return linear(x, stored, type_name, rows, bias, scale)

    @stored_linear.register_fake
    def _(
        x: Tensor,
        stored: Tensor,
        type_name: str,
        rows: int,
        bias: Tensor | None,
        scale: Tensor | None,
    ) -> Tensor:
        return x.new_empty(*x.shape[:-1], rows)

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, stored, ctx.type_name, ctx.rows, _, scale = inputs
        ctx.shape, ctx.dtype = x.shape, x.dtype
        ctx.save_for_backward(stored, scale)

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Of x alone: stored weights and their biases are not trained."""
        stored, scale = ctx.saved_tensors
        count = ctx.rows * ctx.shape[-1]
        weight = decode(stored, ctx.type_name, count, ctx.dtype, scale)
        return grad @ weight.view(ctx.rows, -1), None, None, None, None, None

    stored_linear.register_autograd(backward, setup_context=keep)
    return SimpleNamespace(dequantise=decode, stored_linear=stored_linear)
