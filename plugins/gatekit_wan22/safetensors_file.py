"""The header of a safetensors file, read with json alone and checked against the file."""

from __future__ import annotations

import json
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any, cast

from gatekit import WeightsError

from .header import AGAIN, Header, TensorInfo, file_size, first_overlap, printable

_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
# Types of the format that are listed, and that nothing here computes with.
_OPAQUE = {"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"}
# The format allows 100 MB. A transformer's header has 0.2 MB; one that carries a tokenizer of
# 256,000 pieces in its metadata about 20 MB.
_MOST = 32 << 20
_MOST_LISTS = 2_000_000
_MOST_TENSORS = 20_000  # a transformer has 1,095


def _bad(path: Path, message: str) -> WeightsError:
    return WeightsError(f"damaged safetensors file: {message}", where=str(path), remedy=AGAIN)


def _numbers(given: Any) -> tuple[int, ...]:
    if not isinstance(given, list) or len(cast(list[Any], given)) > 8:
        raise ValueError("not a list of numbers")
    numbers = cast(list[Any], given)
    if not all(type(n) is int and 0 <= n < 1 << 64 for n in numbers):
        raise ValueError("not a list of numbers")
    return tuple(numbers)


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> TensorInfo:
    label = f"'{printable(name)}'"
    try:
        kind, shape = entry["dtype"], _numbers(entry["shape"])
        begin, end = _numbers(entry["data_offsets"])
        if not isinstance(kind, str) or end < begin:
            raise ValueError("no type, or a negative length")
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(path, f"the entry of {label} is malformed") from error
    if start + end > size:
        ends = f"ends at byte {start + end:,}, the file at byte {size:,}: truncated"
        raise _bad(path, f"{label} {ends}")
    if kind not in _BYTES and kind not in _OPAQUE:
        raise WeightsError(
            f"{label} has tensor type '{printable(kind)}', which this version does not know",
            where=str(path),
            remedy="use a file of another type",
        )
    if kind in _BYTES and prod(shape) * _BYTES[kind] != end - begin:
        raise _bad(path, f"{label} of shape {list(shape)[:8]} has {end - begin:,} bytes")
    return TensorInfo(name, shape, kind, start + begin, end - begin)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(name for name, times in Counter(n for n, _ in pairs).items() if times > 1)
        raise DuplicateNameError(twice)
    return found


class DuplicateNameError(Exception):
    """A name that occurs twice in one JSON object, of which json would drop the first."""


def read_safetensors_header(path: Path) -> Header:
    """Read and check the header.

    Raises:
        WeightsError: The header is malformed, or claims bytes that the file does not have.
    """
    size = file_size(path)
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size - 8:
            raise _bad(path, f"its header of {length:,} bytes does not fit {size:,}: truncated")
        if length > _MOST:
            raise _bad(path, f"its header of {length:,} bytes is longer than any model's")
        raw = stream.read(length)
    if b"\0" in raw:  # JSON has none; decoded, an empty stretch of 32 MB could take 128
        raise _bad(path, "its header is no JSON object")
    if raw.count(b"[") + raw.count(b"{") > _MOST_LISTS:
        raise _bad(path, "its header lists more than any model has")
    try:
        # Decoded here: of bytes json guesses the encoding, and may take four bytes a character.
        entries = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(entries, dict):
            raise ValueError("not an object")
    except DuplicateNameError as error:
        raise _bad(path, f"'{printable(str(error))}' occurs twice") from error
    except (ValueError, RecursionError) as error:
        raise _bad(path, "its header is no JSON object") from error
    entries = cast(dict[str, Any], entries)
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise _bad(path, "its metadata is no object")
    if len(entries) > _MOST_TENSORS:
        raise _bad(path, f"its header lists {len(entries):,} tensors, more than any model has")
    tensors = {n: _tensor(path, n, e, 8 + length, size) for n, e in entries.items()}
    if both := first_overlap(tensors):
        raise _bad(path, f"'{printable(both[0])}' and '{printable(both[1])}' overlap")
    return Header(path, "safetensors", size, tensors, cast(dict[str, Any], metadata))
