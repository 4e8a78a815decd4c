"""A block without its weights: the same code, each linear layer known by a number alone.

What a compiler sees of a layer is ``gatekit::layer(x, number, rows)``: an operator that looks the
layer up and calls it. So the code that is compiled knows neither how a weight is stored, nor LoRAs
beside it, nor their strengths, and one compilation serves Q2_K, Q5_K and bf16 alike. Nothing is
lost by that: products are calls into a library in compiled code too. Layers in fp8 stay as they
are, because the quantisation of x is worth fusing into what is before it.
"""

from __future__ import annotations

import copy
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .fp8 import fp8_linear_class
from .lora.branch import lora_linear_class
from .stored_linear import stored_linear_class

if TYPE_CHECKING:
    from torch import Tensor, nn

_layers: WeakValueDictionary[int, Any] = WeakValueDictionary()
_numbers = count()


@cache
def _kept() -> Any:
    """The operator's library, which lives as long as the process."""
    import torch

    library = torch.library.Library("gatekit", "FRAGMENT")
    library.define("layer(Tensor x, Tensor number, SymInt rows) -> Tensor")

    def layer(x: Tensor, number: Tensor, rows: int) -> Tensor:
        return _layers[int(number)](x)

    def shape(x: Tensor, number: Tensor, rows: int) -> Tensor:
        return x.new_empty(*x.shape[:-1], rows)

    library.impl("layer", layer, "CompositeExplicitAutograd")
    torch.library.register_fake("gatekit::layer", shape, lib=library)
    return library


@cache
def numbered_class() -> type[nn.Module]:
    """The class ``Numbered``; made on first use because torch takes seconds to import."""
    import torch
    from torch import nn

    _kept()
    call: Any = torch.ops.gatekit.layer

    class Numbered(nn.Module):
        """Stands for a layer, which must outlive it. Its number is on the CPU: no waiting."""

        number: Tensor

        def __init__(self, layer: nn.Module, rows: int) -> None:
            super().__init__()
            number = next(_numbers)
            _layers[number] = layer
            self.register_buffer("number", torch.tensor(number, device="cpu"), persistent=False)
            self.rows = rows

        def forward(self, x: Tensor) -> Tensor:
            return call(x, self.number, self.rows)

    return Numbered


def shell(module: nn.Module) -> nn.Module:
    """The same module, its linear layers replaced by their numbers, all else shared with it."""
    from torch import nn

    if isinstance(module, fp8_linear_class()):
        return module
    if isinstance(module, nn.Linear | stored_linear_class() | lora_linear_class()):
        base: Any = getattr(module, "base", module)
        return numbered_class()(module, base.out_features)
    if not module._modules:
        return module
    twin = copy.copy(module)  # shares parameters, processors and hooks
    twin.__dict__.pop("forward", None)
    twin._modules = {n: c if c is None else shell(c) for n, c in module._modules.items()}
    return twin
