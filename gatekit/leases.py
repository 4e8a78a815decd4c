"""Weight files that nobody cuts short while they are mapped: on Linux, told before it happens.

A touch of a map beyond the end of its file ends the process (SIGBUS), in the midst of an evaluation
and past every check. Linux can be asked to tell first: whoever opens a file for writing, or cuts
it, waits until the holder of a read lease has let go of it, for 45 s at most (fcntl(2), "Leases";
``/proc/sys/fs/lease-break-time``). The run ends in that time, with an error that names the file,
and a checkpoint. Replacing or removing a file waits for nothing, and does no harm to a map.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gatekit.device import kind_of
from gatekit.errors import WeightsError
from gatekit.unchanged import KEPT, parts

if TYPE_CHECKING:
    from gatekit.plan import Plan


class Leases:
    """Read leases on files, from ``take`` to ``release``; none where the system gives none."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}
        self._told = False

    def take(self, files: Iterable[Path]) -> None:
        """A lease on each file. It must be the user's own, and open for writing nowhere."""
        import fcntl

        for file in dict.fromkeys(part for given in files for part in parts(given)):
            try:
                descriptor = os.open(file, os.O_RDONLY)
            except OSError:  # whoever reads it will say so
                continue
            try:
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            except OSError:
                os.close(descriptor)
            else:
                self._held[file] = descriptor

    def release(self) -> None:
        """Give them back: whoever waits goes on. Idempotent."""
        import fcntl

        self._told = True
        while self._held:
            _, descriptor = self._held.popitem()
            with contextlib.suppress(OSError):
                fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
            os.close(descriptor)

    def told(self, signum: int, frame: FrameType | None) -> None:
        """Handler of SIGIO: somebody waits. Raises WeightsError, once: what follows is the end."""
        if not self._told and (file := self._wanted()) is not None:
            self._told = True
            raise WeightsError(
                "another program is about to write to this file while a run uses it",
                where=str(file),
                remedy=KEPT,
            )

    def _wanted(self) -> Path | None:
        """The file that somebody waits for."""
        import fcntl

        for file, descriptor in self._held.items():
            if fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
                return file
        return None


def mapped(plan: Plan, section: str = "") -> tuple[Path, ...]:
    """Files that a CPU computes from: of a run on one all, else those of a section that is there.

    Args:
        plan: The plan.
        section: ``text_encoder`` or ``vae``.
    """
    if kind_of(plan.device) == "cpu":
        return plan.files()
    part = plan.family.components.given().get(section)
    if part is None or part.device is None or kind_of(part.device) != "cpu":
        return ()
    return plan.family.component_files().get(section, ())


@contextlib.contextmanager
def leased(files: Sequence[Path]) -> Generator[None]:
    """Hold files as they are while this lasts.

    In the main thread of a process on Linux that has no use of SIGIO; else nothing is held.

    Raises:
        WeightsError: Another program is about to change one; from any place within.
    """
    if not files or not _possible():
        yield
        return
    leases = Leases()
    before: Any = signal.signal(signal.SIGIO, leases.told)  # unhandled, it would end the process
    try:
        leases.take(files)
        yield
    finally:
        leases.release()
        signal.signal(signal.SIGIO, before)


def _possible() -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    if threading.current_thread() is not threading.main_thread():
        return False
    return hasattr(fcntl, "F_SETLEASE") and signal.getsignal(signal.SIGIO) is signal.SIG_DFL
