"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.errors import InputError, OutputError, OutputPathError

if TYPE_CHECKING:
    from torch import Tensor


NO_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}  # of a place that was named, not of a file


def write_atomic(path: Path, data: bytes, remedy: str | None = None) -> Path:
    """Write a file under a temporary name beside it, then rename it.

    Raises:
        OutputError: Nothing is left under ``path`` (or what was there before stays).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_synced(partial, data)
        partial.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise cannot_write(path, exc, remedy) from exc
    return path


def check_out(path: Path, option: str = "-o", *, new: bool = False) -> None:
    """Look at the place of a result before anything is computed for it.

    Args:
        path: The file that is to be written.
        option: Where it was given, for the message.
        new: Whether a file that is there is refused; else it would be replaced.

    Raises:
        InputError: A folder has this name, or its own folder is not there or may not be written
            to, or it exists.
    """
    if path.is_dir():
        raise InputError(
            "a folder of this name exists", where=option, value=str(path), remedy="name a file"
        )
    check_parent(path, option)
    if new and path.exists():
        raise InputError(
            "this file exists", where=option, value=str(path), remedy="name another, or remove it"
        )


def check_parent(path: Path, option: str = "-o") -> None:
    """Raise InputError where the folder of a file is not there, or may not be written to."""
    if not path.absolute().parent.is_dir():
        raise InputError(
            "no such folder",
            where=option,
            value=str(path.parent),
            remedy="make it, or name another",
        )
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise InputError(
            "this folder may not be written to",
            where=option,
            value=str(path.parent),
            remedy="name another",
        )


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def cannot_write(
    path: Path, exc: OSError, remedy: str | None = None, no_place: Set[int] = NO_PLACE
) -> OutputError:
    """The error for a file or folder that could not be written: whose fault, and what to do."""
    kind = OutputPathError if exc.errno in no_place else OutputError
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    otherwise = "choose another place with -o"
    return kind(
        f"cannot write: {exc.strerror or exc}",
        where=str(path),
        remedy=remedy or (f"free space there, or {otherwise}" if full else otherwise),
    )


def make_folder(path: Path, remedy: str | None = None) -> Path:
    """Create a folder and its parents. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise cannot_write(path, exc, remedy, NO_PLACE | FORBIDDEN) from exc
    return path


def pixels(frame: Tensor) -> Any:
    """A frame float32 ``[height, width, 3]`` in [0, 1] as a uint8 array."""
    return (frame.clamp(0, 1) * 255.0).round().byte().cpu().numpy()


def free_name(path: Path, taken: Callable[[Path], bool] = Path.exists) -> Path:
    """``path``, or ``path-2``, ``path-3``, ... where that is taken."""
    candidate, number = path, 2
    while taken(candidate):
        candidate, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return candidate
