"""The header of a ``.pth`` file: what ``torch.save`` writes, without torch and without running it.

The file is a zip archive, never compressed: ``data.pkl`` describes the tensors, and each
storage is an entry whose bytes are mapped like those of any other file. The pickle is read
as data (see ``pickle_reader``), so opening a file never executes anything in it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, cast

from gatekit import WeightsError

from .header import AGAIN, Header, TensorInfo, file_size, printable
from .pickle_reader import Call, ForbiddenNameError, Name, Persistent, read_pickle

LONGEST_DIRECTORY = 4 << 20  # of the archive; a model of 1,095 tensors has 0.1 MB
LONGEST_PICKLE = 16 << 20

_TYPES = {
    "Double": ("F64", 8), "Float": ("F32", 4), "Half": ("F16", 2), "BFloat16": ("BF16", 2),
    "Long": ("I64", 8), "Int": ("I32", 4), "Short": ("I16", 2), "Char": ("I8", 1),
    "Byte": ("U8", 1), "Bool": ("BOOL", 1),
}  # fmt: skip
_UNTYPED = {
    "float8_e4m3fn": ("F8_E4M3", 1), "float8_e5m2": ("F8_E5M2", 1), "uint16": ("U16", 2),
    "uint32": ("U32", 4), "uint64": ("U64", 8),
}  # fmt: skip
_STORAGES = {f"torch {name}Storage": found for name, found in _TYPES.items()}
_DTYPES = {f"torch {name}": found for name, found in _UNTYPED.items()}
_TENSOR = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3")
_PARAMETER = "torch._utils _rebuild_parameter"
ALLOWED = frozenset(
    {"collections OrderedDict", "torch.storage UntypedStorage", *_TENSOR, _PARAMETER}
    | _STORAGES.keys()
    | _DTYPES.keys()
)


def _bad(path: Path, message: str) -> WeightsError:
    return WeightsError(f"damaged .pth file: {message}", where=str(path), remedy=AGAIN)


class _Bounded(io.BufferedReader):
    """A file of which no single read is longer than the archive's directory may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = LONGEST_DIRECTORY + 1
        content = super().read(most if size is None or size < 0 else min(size, most))
        if len(content) == most:
            raise ValueError("its directory is longer than that of any model")
        return content


def _entries(path: Path, stream: BinaryIO, size: int) -> dict[str, tuple[int, int]]:
    """Name without its first folder -> (first byte, length) of every entry."""
    found: dict[str, tuple[int, int]] = {}
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if info.compress_type or info.compress_size != info.file_size or info.flag_bits & 1:
                raise _bad(path, f"'{printable(info.filename)}' is compressed; torch does not")
            stream.seek(info.header_offset)
            local = stream.read(30)
            if len(local) < 30 or local[:4] != b"PK\x03\x04":
                raise _bad(path, f"'{printable(info.filename)}' is not where its directory says")
            lengths = int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:], "little")
            start = info.header_offset + 30 + lengths
            if start + info.file_size > size:
                raise _bad(path, f"'{printable(info.filename)}' ends past the file: truncated")
            if name in found:
                raise _bad(path, f"'{printable(info.filename)}' occurs twice")
            found[name] = (start, info.file_size)
    return found


def _tensor(name: str, call: Call, entries: Mapping[str, tuple[int, int]]) -> TensorInfo:
    """A rebuilt tensor as a place in the file; ValueError where it fits none."""
    if call.of.name == _PARAMETER:
        call = call.arguments[0]
    if call.of.name not in _TENSOR:
        raise ValueError("is no tensor")
    if len(call.arguments) < 6 or not isinstance(call.arguments[0], Persistent):
        raise ValueError("has no storage")
    persistent, skipped, shape, stride = call.arguments[:4]
    if not isinstance(persistent.key, tuple) or len(persistent.key) != 5:
        raise ValueError("has no storage of a known kind")
    _, storage, key, _, _ = persistent.key
    if not isinstance(key, str) or len(shape) > 8:
        raise ValueError("has an impossible shape or storage")
    declared = call.arguments[6] if call.of.name == _TENSOR[1] else storage
    kinds = _DTYPES if call.of.name == _TENSOR[1] else _STORAGES
    if not isinstance(declared, Name) or declared.name not in kinds:
        raise ValueError("is of a type that is not known")
    kind, width = kinds[declared.name]
    numbers = (skipped, *shape, *stride)
    if not all(type(n) is int and n >= 0 for n in numbers) or len(shape) != len(stride):
        raise ValueError("has an impossible shape")
    expected = 1
    for length, step in zip(reversed(shape), reversed(stride), strict=True):
        if length > 1 and step != expected:
            raise ValueError("is not stored row by row (a transposed or expanded view)")
        expected *= length
    start, available = entries[f"data/{key}"]
    nbytes = prod(shape) * width
    if skipped * width + nbytes > available:
        raise ValueError(f"needs {skipped * width + nbytes:,} of its {available:,} bytes")
    return TensorInfo(name, tuple(shape), kind, start + skipped * width, nbytes)


def _state_dict(value: Any) -> dict[str, Call] | None:
    """The tensors by name: the value itself, or the one dict in it that holds them."""
    if not isinstance(value, dict):
        return None
    items = cast(dict[Any, Any], value)
    inner = {id(v): cast(dict[Any, Any], v) for v in items.values() if isinstance(v, dict)}
    if tensors := _calls(items):
        return tensors
    found = [tensors for each in inner.values() if (tensors := _calls(each))]
    return found[0] if len(found) == 1 else None


def _calls(items: Mapping[Any, Any]) -> dict[str, Call]:
    return {str(name): value for name, value in items.items() if isinstance(value, Call)}


def read_pth_header(path: Path) -> Header:
    """Read and check the header; nothing in the file is executed.

    Raises:
        WeightsError: The file is damaged, holds code, or holds no tensors by name.
    """
    size = file_size(path)
    try:
        with path.open("rb", buffering=0) as raw, _Bounded(raw) as stream:
            entries = _entries(path, stream, size)
            if "data.pkl" not in entries:
                raise _bad(path, "a zip archive without data.pkl; torch.save writes one")
            start, length = entries["data.pkl"]
            if length > LONGEST_PICKLE:
                raise _bad(path, f"its data.pkl of {length:,} bytes is longer than any model's")
            if not _little_endian(stream, entries):
                raise _bad(path, "written on a big-endian machine")
            stream.seek(start)
            content = b"".join(
                stream.read(min(LONGEST_DIRECTORY, length - at))
                for at in range(0, length, LONGEST_DIRECTORY)
            )
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError) as error:
        raise _bad(path, f"its archive cannot be read: {printable(str(error))}") from error
    return Header(path, "pth", size, _tensors(path, content, entries))


def _little_endian(stream: BinaryIO, entries: Mapping[str, tuple[int, int]]) -> bool:
    if "byteorder" not in entries:
        return True  # files of torch 1
    stream.seek(entries["byteorder"][0])
    return stream.read(6) == b"little"


def _tensors(
    path: Path, content: bytes, entries: Mapping[str, tuple[int, int]]
) -> dict[str, TensorInfo]:
    try:
        state = _state_dict(read_pickle(content, ALLOWED))
    except ForbiddenNameError as error:
        raise WeightsError(
            f"it would run code when unpickled: it refers to '{printable(str(error))}'",
            where=str(path),
            remedy="weights need no code; get a safetensors or GGUF file of them",
        ) from error
    except (ValueError, RecursionError) as error:
        raise _bad(path, printable(str(error))) from error
    if state is None:
        raise WeightsError(
            "a .pth file without tensors by name",
            where=str(path),
            remedy="save the model's state dict with torch.save",
        )
    tensors: dict[str, TensorInfo] = {}
    for name, call in state.items():
        try:
            tensors[name] = _tensor(name, call, entries)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            known = str(error) if type(error) is ValueError else "is malformed"
            raise _bad(path, f"'{printable(name)}' {printable(known)}") from error
    return tensors
