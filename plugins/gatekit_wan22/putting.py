"""Parts put into diffusers' model: views of device memory as its parameters, by official name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import layout_transformer as layout
from .units import Part

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def weights(part: Part, memory: Tensor) -> Tensor:
    """The weights of a part that is held as such: a view of its memory."""
    flat = memory[part.offset : part.offset + part.nbytes]
    return flat.view(dtype_of(part.dtype)).view(part.shape)


def dtype_of(name: str) -> torch.dtype:
    """The torch type of a part's weights."""
    from .precision import torch_dtype

    return torch_dtype(name)


def place_of(model: Any, part: Part, ending: str) -> tuple[Any, str]:
    """The module that has a part, and its name there."""
    target = layout.to_diffusers(part.name)
    assert target is not None
    owner, _, leaf = target.removesuffix(ending).rpartition(".")
    return model.get_submodule(owner), leaf


def rounded(part: Part, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Of a part that is held in e4m3: its numbers, and the float32 scales of its rows."""
    import torch

    rows, columns = part.shape
    end = part.offset + part.nbytes
    q = memory[part.offset : part.offset + rows * columns].view(torch.float8_e4m3fn)
    return q.view(rows, columns), memory[end - 4 * rows : end].view(torch.float32)


def put_rounded(model: Any, part: Part, memory: Tensor, bias: Tensor) -> None:
    """Have a layer that multiplies in fp8."""
    from .fp8 import new_fp8_linear

    q, scale = rounded(part, memory)
    put_layer(model, part, new_fp8_linear(q, scale, bias))


def put_stored(model: Any, part: Part, memory: Tensor, bias: Tensor, scale: Tensor | None) -> None:
    """Have a layer that decodes its bytes when it is used."""
    from .stored_linear import new_stored_linear

    stored = memory[part.offset : part.offset + part.nbytes]
    kind, dtype = part.info.type, dtype_of(part.dtype)
    put_layer(model, part, new_stored_linear(stored, kind, part.shape, bias, dtype, scale))


def put_layer(model: Any, part: Part, layer: Any) -> None:
    """Have this layer in the place of the one whose weight the part is."""
    owner, leaf = place_of(model, part, ".weight")
    setattr(owner, leaf, layer)  # an index into a ModuleList is a name too


def put(model: Any, part: Part, value: Tensor) -> None:
    """Have a parameter be this tensor."""
    from torch import nn

    owner, leaf = place_of(model, part, "")
    owner.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
