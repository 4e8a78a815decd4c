"""Packing: frozen records with tensors as JSON and a safetensors file's tensors, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from gatekit.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor

Kinds = Mapping[str, type[Any]]
# What reading a file of packed values may raise where it is not what was written.
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def detached(tensor: Tensor) -> Tensor:
    """A contiguous copy in host memory."""
    return tensor.detach().to("cpu", copy=True).contiguous()


class Packer:
    """Turns a value into JSON; tensors go to ``tensors``, each once.

    Args:
        kinds: Dataclasses that may occur, by name.
        copy: What becomes of a tensor: a contiguous one in host memory that nobody changes.
    """

    def __init__(self, kinds: Kinds, copy: Callable[[Tensor], Tensor] = detached) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._kinds, self._copy = kinds, copy
        self._names: dict[int, str] = {}

    def pack(self, value: Any) -> Any:
        """The value as JSON. Raises OutputError for what neither JSON nor safetensors holds."""
        import torch

        if isinstance(value, torch.Tensor):
            if value.is_quantized or value.is_sparse or value.dtype == torch.complex128:
                raise _no_place(f"{value.dtype}, {value.layout}")
            if id(value) not in self._names:
                self._names[id(value)] = f"t{len(self._names)}"
                self.tensors[self._names[id(value)]] = self._copy(value)
            return {"$tensor": self._names[id(value)]}
        if self._kinds.get(type(value).__name__) is type(value):
            content = {f.name: self.pack(getattr(value, f.name)) for f in fields(value)}
            return {f"${type(value).__name__}": content}
        if isinstance(value, Mapping):
            items = cast("Mapping[Any, Any]", value).items()
            if all(isinstance(key, str) for key, _ in items):
                return {"$map": {key: self.pack(item) for key, item in items}}
            return {"$items": [[self.pack(key), self.pack(item)] for key, item in items]}
        if isinstance(value, (tuple, list)):
            return [self.pack(item) for item in cast("list[Any]", value)]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise _no_place(type(value).__name__)


def _no_place(what: str) -> OutputError:
    return OutputError(
        "a sampler or guidance remembers what cannot be saved",
        value=what,
        remedy="keep tensors, numbers, strings, and lists or mappings of them",
    )


def unpack(value: Any, tensors: Mapping[str, Tensor], kinds: Kinds) -> Any:
    """What ``Packer.pack`` was given; sequences come back as tuples.

    Raises:
        One of ``MALFORMED``: It is nothing that ``pack`` gave.
    """
    if isinstance(value, list):
        return tuple(unpack(item, tensors, kinds) for item in cast("list[Any]", value))
    if not isinstance(value, dict):
        return value
    ((tag, content),) = cast("dict[str, Any]", value).items()
    if tag == "$tensor":
        return tensors[content]
    if tag == "$items":
        pairs = (unpack(pair, tensors, kinds) for pair in content)
        return {key: item for key, item in pairs}  # noqa: C416  (a pair is checked to be one)
    items = {key: unpack(item, tensors, kinds) for key, item in content.items()}
    return items if tag == "$map" else kinds[tag[1:]](**items)
