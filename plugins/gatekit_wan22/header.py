"""What the header of a weight file says: names, shapes, types and places of its tensors.

Nothing here reads a weight or imports torch, so a plan can ask. Every claim of the header
is checked against the size of the file before anything is mapped.
"""

from __future__ import annotations

import contextlib
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from gatekit import WeightsError

FLOAT_TYPES = ("F32", "F16", "BF16")
AGAIN = "download or copy the file again"


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file.

    Attributes:
        name: As the file has it.
        shape: In torch's order, ``[out, in]`` for a matrix.
        type: ``F32``, ``F16``, ``BF16``, ``Q2_K``, ...
        offset: First byte, from the start of the file.
        nbytes: Bytes stored.
        file: The file that holds it; None is the header's ``path``.
        scale: One number, or one a row, that the stored weights are multiplied by.
        scale_input: The scale of its layer's input, for fp8 arithmetic; reading ignores it.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    nbytes: int
    file: Path | None = None
    scale: TensorInfo | None = None
    scale_input: TensorInfo | None = None

    @property
    def count(self) -> int:
        """Number of weights."""
        return prod(self.shape)

    @property
    def quantised(self) -> bool:
        """Whether the bytes must be decoded before use: GGUF blocks and fp8."""
        return self.type not in FLOAT_TYPES


@dataclass(frozen=True)
class Header:
    """The header of one file.

    Attributes:
        path: The file, or the folder of several.
        format: ``gguf``, ``safetensors`` or ``pth``.
        file_bytes: Its size, or the sum of them.
        tensors: By name as the file has it. Scales are no tensors of their own here: they
            are in the ``scale`` of what they scale.
        metadata: Key to value; long arrays of a GGUF are left out.
    """

    path: Path
    format: str
    file_bytes: int
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def types(self) -> dict[str, int]:
        """Tensor type -> number of tensors, most frequent first."""
        return dict(Counter(t.type for t in self.tensors.values()).most_common())

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(t.count for t in self.tensors.values())

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors, without scales."""
        return sum(t.nbytes for t in self.tensors.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold tensors, sorted."""
        return tuple(sorted({t.file or self.path for t in self.tensors.values()} or {self.path}))


def printable(name: str) -> str:
    """A name out of a file that may be damaged, fit for one line."""
    return "".join(c if c.isprintable() else "?" for c in name[:80])


def first_overlap(tensors: Mapping[str, TensorInfo]) -> tuple[str, str] | None:
    """Names of the first two tensors that share a byte of a file."""
    placed = sorted((t for t in tensors.values() if t.nbytes), key=lambda t: t.offset)
    for before, after in pairwise(placed):
        if before.offset + before.nbytes > after.offset:
            return before.name, after.name
    return None


def file_size(path: Path) -> int:
    """Size of a file; WeightsError where it cannot be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, a device never ends
            raise OSError("a pipe, a device or a folder")
        return found.st_size
    except OSError as error:
        raise WeightsError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="check the path and its permissions",
        ) from error


def file_kind(path: Path) -> str:
    """``gguf``, ``safetensors`` or ``pth``, by the first bytes and never by the name."""
    size = file_size(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError as error:
        raise WeightsError(
            f"cannot be read: {error.strerror or error}", where=str(path), remedy="check it"
        ) from error
    if start[:4] == b"GGUF":
        return "gguf"
    if start[:4] == b"PK\x03\x04":
        return "pth"
    length = int.from_bytes(start[:8], "little")
    if len(start) > 8 and start[8:9] == b"{" and 2 <= length <= max(size, 100_000_000):
        return "safetensors"
    hint = "it is empty" if size == 0 else "neither a GGUF, a safetensors nor a .pth file"
    remedy = "give a .gguf, .safetensors or .pth file of a Wan model"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html")):
        hint = "a web page, no weights"
        remedy = "a page to log in, or of an error, was saved in place of the file: " + AGAIN
    if start.startswith(b"version https://git-lfs"):
        hint, remedy = "a pointer of Git LFS, no weights", "get the file itself with 'git lfs pull'"
    if start[:1] == b"\x80":
        hint = "a pickle of the format that torch wrote before version 1.6"
        remedy = "it can only be read by running it; save it again with a newer torch"
    raise WeightsError(hint, where=str(path), remedy=remedy)


def read_header(path: str | Path, *, role: str | None = None, expert: str | None = None) -> Header:
    """Read the header of a weight file, or of a folder of them.

    Args:
        path: A GGUF, safetensors or ``.pth`` file, a folder of shards, an index, or one of
            several shards, which then stands for all.
        role: ``transformer``, ``text_encoder`` or ``vae``: which part of a model's root
            folder is meant. None takes ``path`` as it is.
        expert: ``high`` or ``low``: which expert of a root folder.

    Raises:
        WeightsError: A file is missing, of another kind, truncated or inconsistent.
    """
    from .folders import INDEX, is_shard, read_folder, resolve_root

    path = resolve_root(Path(path), role, expert)
    if path.is_dir() or path.name.endswith(INDEX) or is_shard(path):
        header = read_folder(path, _read_file)
    else:
        header = _read_file(path)
    if header.format == "gguf":
        return header
    from .scales import fold_scales

    return fold_scales(header)


def weight_files(path: Path, role: str | None = None) -> tuple[Path, ...]:
    """The files that ``read_header`` reads; ``path`` where it cannot."""
    from .folders import is_shard

    if path.is_dir() or is_shard(path):
        with contextlib.suppress(WeightsError):
            return read_header(path, role=role).files
    return (path,)


def _read_file(path: Path) -> Header:
    """The header of one file, its scales still tensors."""
    kind = file_kind(path)
    if kind == "gguf":
        from .gguf_file import read_gguf_header

        return read_gguf_header(path)
    if kind == "pth":
        from .pth_file import read_pth_header

        return read_pth_header(path)
    from .safetensors_file import read_safetensors_header

    return read_safetensors_header(path)
