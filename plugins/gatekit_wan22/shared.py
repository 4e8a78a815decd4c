"""Tensors that several loaded models have in common: the same bytes are held once.

Two precisions of one expert differ in their matrices; embeddings, norms and biases are often the
same, byte for byte. They are found by comparing the files, so no name has to say so.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from .mapped import MappedFile
from .units import Part

if TYPE_CHECKING:
    from torch import Tensor

_PROBE = 4096


class Held:
    """One tensor on a device, with the bytes that it was made from.

    Attributes:
        tensor: uint8, on the device.
        raw: The bytes, in the mapped file.
        arrived: Whether the tensor has been filled.
    """

    def __init__(self, tensor: Tensor, raw: Tensor) -> None:
        self.tensor, self.raw, self.arrived = tensor, raw, False


_held: dict[tuple[object, ...], weakref.WeakSet[Held]] = {}


def _kind(part: Part, device: str) -> tuple[object, ...]:
    return part.name, part.info.type, part.info.nbytes, part.form, part.dtype, device


def find(part: Part, mapped: MappedFile, device: str) -> Held | None:
    """A tensor of the same bytes that another model has on the device; None where there is none."""
    if part.info.scale is not None:
        return None
    raw = mapped.raw(part.info)
    for held in _held.get(_kind(part, device), ()):
        if held.arrived and _same(held.raw, raw):
            return held
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    import torch

    ends_differ = any(
        not torch.equal(a[at], b[at]) for at in (slice(0, _PROBE), slice(-_PROBE, None))
    )
    return not ends_differ and torch.equal(a, b)


def hold(part: Part, mapped: MappedFile, device: str, tensor: Tensor) -> Held:
    """Let others find a tensor while it is held; ``arrived`` is set when it is filled."""
    found = Held(tensor, mapped.raw(part.info))
    _held.setdefault(_kind(part, device), weakref.WeakSet()).add(found)
    return found
