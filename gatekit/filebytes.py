"""Bytes of files, read straight into memory that is already there; by several threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from gatekit.errors import WeightsError


def cut_short(path: Path) -> WeightsError:
    """The error of a file that ends before what its header lists."""
    return WeightsError(
        "ends before the weights that its header lists",
        where=str(path),
        remedy="do not change weight files while they are used",
    )


def read_into(path: Path, offset: int, into: memoryview) -> None:
    """Fill memory with a file's bytes, opened for this one time.

    Args:
        path: The file.
        offset: Where in it to begin, in bytes.
        into: Writable memory of bytes; all of it is filled.

    Raises:
        WeightsError: The file ends before, or cannot be read.
    """
    files = Files()
    try:
        files.read(path, offset, into)
    finally:
        files.close()


class Files:
    """Files that are read from, each opened once."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}
        self._lock = threading.Lock()

    def read(self, path: Path, offset: int, into: memoryview) -> None:
        """Fill ``into`` from ``offset`` on. Raises WeightsError where the file cannot give it."""
        done = 0
        try:
            while done < len(into):
                count = self._some(path, offset + done, into[done:])
                if not count:
                    raise cut_short(path)
                done += count
        except OSError as error:
            raise WeightsError(
                f"cannot be read: {error.strerror or error}",
                where=str(path),
                remedy="check the disk, and that the file is still there",
            ) from error

    def _some(self, path: Path, offset: int, into: memoryview) -> int:
        if not hasattr(os, "preadv"):  # Windows has no read that leaves the position alone
            with path.open("rb", buffering=0) as stream:
                stream.seek(offset)
                return stream.readinto(into) or 0
        return os.preadv(self._descriptor(path), [into], offset)

    def _descriptor(self, path: Path) -> int:
        with self._lock:
            if path not in self._open:
                self._open[path] = os.open(path, os.O_RDONLY)
            return self._open[path]

    def expect(self, path: Path, offset: int, count: int) -> None:
        """Ask the system to have these bytes in its page cache soon; where it can be asked."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor(path), offset, count, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            for descriptor in self._open.values():
                os.close(descriptor)
            self._open.clear()
