"""The header of a GGUF file.

Block sizes and type names are gguf-py's; the walk through the header is written here
because every count and length is checked against the file before it is believed.

Layout (little-endian): magic, version u32, tensor count u64, key count u64; per key: name,
type u32, value; per tensor: name, dimensions u32, u64 each (fastest first), type u32,
offset u64; then the data, aligned.
"""

from __future__ import annotations

import math
import struct
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from gatekit import WeightsError

from .header import AGAIN, Header, TensorInfo, file_size, first_overlap, printable

_SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9
_LENGTH, _BUFFER = struct.Struct("<Q"), 1 << 20
# Far above what any model has: 1,095 tensors, as many keys at most, 256,000 pieces of a
# vocabulary in some 5 MB.
_MOST = {"tensors": 20_000, "keys": 20_000, "strings": 1_000_000, "array items": 1 << 28}
_BUDGET = 16 << 20  # bytes of metadata that are read, not passed over
_SHORT = 64  # arrays longer than this are passed over: vocabularies and their scores


class _Reader:
    """A bounded reader: whatever would pass the end of the file is an error first."""

    def __init__(self, path: Path, stream: BinaryIO, size: int) -> None:
        self.path, self.stream, self.size = path, stream, size
        self.budget = _BUDGET

    def bad(self, message: str) -> WeightsError:
        return WeightsError(f"damaged GGUF file: {message}", where=str(self.path), remedy=AGAIN)

    def take(self, count: int) -> bytes:
        if count > self.size - self.stream.tell():
            raise self.bad(f"its header needs more than the {self.size:,} bytes there are")
        self.budget -= count
        if self.budget < 0:
            raise self.bad(f"its header has more than {_BUDGET:,} bytes of names and values")
        return self.stream.read(count)

    def skip(self, count: int) -> None:
        if count > self.size - self.stream.tell():
            raise self.bad(f"its header needs more than the {self.size:,} bytes there are")
        self.stream.seek(count, 1)

    def skip_strings(self, number: int) -> None:
        """Pass over strings, through a buffer: a vocabulary has hundreds of thousands."""
        self.budget -= _LENGTH.size * number  # what is left is checked by the next take
        start, buffer, at = self.stream.tell(), b"", 0
        for _ in range(number):
            if at + _LENGTH.size > len(buffer):
                self.stream.seek(start)
                self.skip(at)
                start, at = self.stream.tell(), 0
                buffer = self.stream.read(min(_BUFFER, self.size - start))
                if len(buffer) < _LENGTH.size:
                    self.take(_LENGTH.size)  # says that the file is too short
            at += _LENGTH.size + _LENGTH.unpack_from(buffer, at)[0]
        self.stream.seek(start)
        self.skip(at)

    def scalar(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def string(self) -> str:
        return self.take(self.scalar("<Q")).decode("utf-8", "replace")

    def count(self, what: str, least: int) -> int:
        """A number of things of which each takes at least ``least`` bytes."""
        number = self.scalar("<Q")
        if number * least > self.size:
            raise self.bad(f"it claims {number:,} {what} in {self.size:,} bytes")
        if number > _MOST[what]:
            raise self.bad(f"it claims {number:,} {what}, more than any model has")
        return number

    def value(self, kind: int, longest: float = _SHORT) -> Any:
        """A value; None for an array of more than ``longest`` items, which is passed over."""
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            raise self.bad(f"unknown value type {kind} in its metadata")
        inner = self.scalar("<I")
        if inner == _STRING:
            number = self.count("strings", 8)
            if number <= longest:
                return [self.string() for _ in range(number)]
            self.skip_strings(number)
            return None
        if inner not in _SCALARS:
            raise self.bad(f"unknown array type {inner} in its metadata")
        width = struct.calcsize(_SCALARS[inner])
        number = self.count("array items", width)
        if number <= longest:
            return list(struct.unpack(f"<{number}{_SCALARS[inner][1]}", self.take(number * width)))
        self.skip(number * width)
        return None


def _tensor_entry(reader: _Reader) -> tuple[str, tuple[int, ...], str, int, int]:
    """Name, shape in torch's order, type, offset from the data's start, bytes."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    name = reader.string()
    number = reader.scalar("<I")
    if not 1 <= number <= 8:
        raise reader.bad(f"'{printable(name)}' has {number} dimensions")
    shape = tuple(reader.scalar("<Q") for _ in range(number))[::-1]
    kind, offset = reader.scalar("<I"), reader.scalar("<Q")
    try:
        kind = GGMLQuantizationType(kind)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise WeightsError(
            f"'{printable(name)}' has tensor type {kind}, which this version does not know",
            where=str(reader.path),
            remedy="update the package 'gguf', or use a file of another type",
        ) from error
    if shape[-1] % block:
        raise reader.bad(f"'{printable(name)}': rows of {shape[-1]} are no multiple of {block}")
    return name, shape, kind.name, offset, prod(shape) // block * block_bytes


def _start(reader: _Reader) -> tuple[int, int]:
    """Numbers of tensors and of keys, after magic and version."""
    where = str(reader.path)
    if reader.take(4) != b"GGUF":
        raise WeightsError("not a GGUF file", where=where, remedy="check its kind")
    version = reader.scalar("<I")
    if version not in (2, 3):
        raise WeightsError(
            f"GGUF version {version if version < 65536 else 'of a big-endian machine'}",
            where=where,
            remedy="versions 2 and 3, little-endian, are readable",
        )
    return reader.count("tensors", 24), reader.count("keys", 12)


def read_gguf_values(path: Path, prefix: str) -> dict[str, Any]:
    """Metadata whose keys begin with ``prefix``, arrays of any length included.

    Raises:
        WeightsError: The file is truncated, or its header claims what cannot be.
    """
    found: dict[str, Any] = {}
    seen: set[str] = set()
    with path.open("rb") as stream:
        reader = _Reader(path, stream, file_size(path))
        for _ in range(_start(reader)[1]):
            key = reader.string()
            if key in seen:
                raise reader.bad(f"the key '{printable(key)}' occurs twice")
            seen.add(key)
            wanted = key.startswith(prefix)
            value = reader.value(reader.scalar("<I"), math.inf if wanted else _SHORT)
            if wanted:
                found[key.removeprefix(prefix)] = value
    return found


def read_gguf_header(path: Path) -> Header:
    """Read and check the header.

    Raises:
        WeightsError: The file is truncated, or its header claims what cannot be.
    """
    with path.open("rb") as stream:
        reader = _Reader(path, stream, file_size(path))
        number_of_tensors, number_of_keys = _start(reader)
        metadata: dict[str, Any] = {}
        for _ in range(number_of_keys):
            key = reader.string()
            if key in metadata:
                raise reader.bad(f"the key '{printable(key)}' occurs twice")
            metadata[key] = reader.value(reader.scalar("<I"))
        entries = [_tensor_entry(reader) for _ in range(number_of_tensors)]
        end = stream.tell()

    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise reader.bad(f"alignment {alignment!r} is no power of two")
    start = -(-end // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, kind, offset, nbytes in entries:
        if name in tensors:
            raise reader.bad(f"'{printable(name)}' occurs twice")
        if start + offset + nbytes > reader.size:
            raise reader.bad(
                f"'{printable(name)}' ends at byte {start + offset + nbytes:,}, the file at byte "
                f"{reader.size:,}: truncated"
            )
        shape = _original_shape(metadata.get(f"comfy.gguf.orig_shape.{name}"), shape)
        tensors[name] = TensorInfo(name, shape, kind, start + offset, nbytes)
    if both := first_overlap(tensors):
        raise reader.bad(f"'{printable(both[0])}' and '{printable(both[1])}' overlap")
    return Header(path, "gguf", reader.size, tensors, metadata)


def _original_shape(given: object, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a converter recorded before it folded the tensor, if it fits."""
    if isinstance(given, list) and all(isinstance(n, int) and n > 0 for n in given):
        original = tuple(int(n) for n in given)
        if prod(original) == prod(shape):
            return original
    return shape
