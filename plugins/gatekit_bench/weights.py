"""Random weights for a model that is loaded, by what its layers hold; never zeros.

The first model gets its own; the others take theirs from it, decoded, so that the outputs of all
can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


def fill(model: Any, source: Any = None) -> None:
    """Put weights into every layer.

    Args:
        model: The transformer of a variant.
        source: Whose weights to take; new ones if None.
    """
    import torch

    with torch.no_grad():
        for seed, (name, layer) in enumerate(model.named_modules()):
            theirs = source.get_submodule(name) if source is not None else None
            if hasattr(layer, "stored"):
                _blocks(layer, seed)
                _floats(layer, name, seed, theirs)
            elif hasattr(layer, "q") and hasattr(layer, "scale"):
                _fp8(layer, seed, theirs)
                _floats(layer, name, seed, theirs)
            else:
                _floats(layer, name, seed, theirs)


def decoded(layer: Any) -> Tensor:
    """The weight ``[out, in]`` of a linear layer, however it is held."""
    return layer.decoded() if hasattr(layer, "decoded") else layer.weight


def _blocks(layer: Any, seed: int) -> None:
    from gatekit_bench.blocks import random_blocks

    count, std = layer.out_features * layer.in_features, layer.in_features**-0.5
    device = str(layer.stored.device)
    layer.stored = random_blocks(layer.type_name, count, std, device, seed)


def _fp8(layer: Any, seed: int, source: Any) -> None:
    from gatekit_wan22.fp8 import quantised

    if source is not None:
        w = decoded(source).float()
    else:
        w = _normal((layer.out_features, layer.in_features), seed, str(layer.q.device))
        w *= layer.in_features**-0.5
    q, scale = quantised(w)
    layer.q.copy_(q)
    layer.scale.copy_(scale.view(layer.scale.shape))


def _floats(layer: nn.Module, name: str, seed: int, source: Any) -> None:
    """Parameters of the layer itself."""
    for i, (leaf, held) in enumerate(layer.named_parameters(recurse=False)):
        if source is not None:
            given = decoded(source) if leaf == "weight" and held.ndim == 2 else None
            held.copy_(getattr(source, leaf) if given is None else given)
            continue
        scale = 0.02 if held.ndim == 1 else held[0].numel() ** -0.5
        noise = _normal(tuple(held.shape), 1000 * seed + i, str(held.device)) * scale
        held.copy_(noise + (1.0 if "norm" in name and leaf == "weight" else 0.0))


def _normal(shape: tuple[int, ...], seed: int, device: str) -> Tensor:
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=device)
