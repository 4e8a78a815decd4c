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


def put(model: Any, part: Part, value: Tensor) -> None:
    """Have a parameter be this tensor."""
    from torch import nn

    owner, leaf = place_of(model, part, "")
    owner.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
