"""The header of a safetensors file, read with json alone and checked against the file."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from gatekit import WeightsError

from .header import AGAIN, Header, TensorInfo, file_size, printable

_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
_MOST = 100_000_000  # longest header the format allows


def _bad(path: Path, message: str) -> WeightsError:
    return WeightsError(f"damaged safetensors file: {message}", where=str(path), remedy=AGAIN)


def _tensor(path: Path, name: str, entry: Any, start: int, size: int) -> TensorInfo:
    try:
        kind, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
        begin, end = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(path, f"the entry of '{printable(name)}' is malformed") from error
    label = f"'{printable(name)}'"
    if min((*shape, begin, end - begin), default=0) < 0 or start + end > size:
        ends = f"ends at byte {start + end:,}, the file at byte {size:,}: truncated"
        raise _bad(path, f"{label} {ends}")
    if kind in _BYTES and prod(shape) * _BYTES[kind] != end - begin:
        raise _bad(path, f"{label} of shape {list(shape)[:8]} has {end - begin:,} bytes")
    return TensorInfo(name, shape, kind, start + begin, end - begin)


def read_safetensors_header(path: Path) -> Header:
    """Read and check the header.

    Raises:
        WeightsError: The header is malformed, or claims bytes that the file does not have.
    """
    size = file_size(path)
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(_MOST, size - 8):
            raise _bad(path, f"its header of {length:,} bytes does not fit {size:,}: truncated")
        raw = stream.read(length)
    try:
        entries = json.loads(raw)
        if not isinstance(entries, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise _bad(path, "its header is no JSON object") from error
    metadata = entries.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise _bad(path, "its metadata is no object")
    tensors = {n: _tensor(path, n, e, 8 + length, size) for n, e in entries.items()}
    return Header(path, "safetensors", size, tensors, metadata)
