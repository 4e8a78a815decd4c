"""One run a folder: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from gatekit.errors import InputError
from gatekit.jsontext import read_json

LOCK = ".lock"

log = logging.getLogger("gatekit")


class RunLock:
    """Held while a run writes into a folder.

    A lock of the system (``flock``, or its like on Windows) by ``filelock``, which torch needs too.
    A file with a process number would outlive ``kill -9``, and the number could be another
    process's by then. The lock's file stays: to remove it would let two runs lock two files.
    """

    def __init__(self, folder: Path) -> None:
        import filelock

        self.folder = folder
        self._timeout = filelock.Timeout
        self._lock = filelock.FileLock(folder / LOCK, blocking=False, is_singleton=False)

    def take(self, record: Path) -> None:
        """Take it; ``record`` tells which process holds it.

        Raises:
            InputError: Another run has it.
        """
        try:
            self._lock.acquire()
        except self._timeout:
            raise InputError(
                f"another run is writing here{_process(record)}",
                where=str(self.folder),
                remedy="wait for it, stop it, or choose another folder with --run-dir",
            ) from None
        except (OSError, NotImplementedError):
            # Some network file systems lock nothing.
            log.warning(
                "%s cannot be locked: see to it that no other run writes there", self.folder
            )

    def release(self) -> None:
        """Give it back; idempotent."""
        with contextlib.suppress(OSError):
            self._lock.release()


def _process(record: Path) -> str:
    try:
        return f" (process {int(read_json(record)['process'])})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
