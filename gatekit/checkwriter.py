"""The thread that writes checkpoints while the run computes."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.checkpoint import checkpoint_bytes
from gatekit.errors import OutputError, one_line
from gatekit.hostcopies import HostCopies
from gatekit.output import write_atomic

if TYPE_CHECKING:
    from gatekit.state import Packed, Record, State

log = logging.getLogger("gatekit")
SHARE = 0.1  # of the time, for writing
LATER = "free space there; the run goes on without a new checkpoint until one can be written"


@dataclass(frozen=True)
class Job:
    """A state on its way to the disk."""

    packed: Packed
    step: int
    records: tuple[Record, ...]
    arrived: Callable[[], None]


class CheckpointWriter:
    """Keeps one file at the newest state that the disk keeps up with.

    Args:
        path: The file.
        mark: What decides the bits of the run.
        wrote: Called in the thread after each write, with the records up to it.

    Each state is copied at once and handed to the thread, which writes it. One state waits at most:
    a newer one takes its place, so a slow disk never slows the run or fills the memory. After each
    write the thread rests for nine times as long as it took: checkpoints then take a tenth of the
    disk's time at most, and where a step takes ten times what a write takes, as with any large
    model, every step is written. What a crash costs is one step or ten writes, whichever is longer.

    Attributes:
        conditioning: Hash of the encoded inputs, once known.
        facts: ``written``, ``bytes`` of the last one, and seconds: ``copying`` on the run's own
            time, ``writing`` in the thread.
    """

    def __init__(
        self,
        path: Path,
        mark: dict[str, Any],
        wrote: Callable[[tuple[Record, ...]], None] | None = None,
    ) -> None:
        self.path, self.mark, self.conditioning, self._wrote = path, mark, "", wrote
        self.facts: dict[str, float] = {"written": 0, "bytes": 0, "copying": 0.0, "writing": 0.0}
        self._copies = HostCopies()
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._busy = self._hurry = self._closed = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def submit(self, state: State, records: tuple[Record, ...]) -> None:
        """Have a state written soon. It is copied before this returns.

        Raises:
            OutputError: A sampler or guidance remembers what cannot be saved, or the system gives
                no memory for a copy or no thread.
        """
        began = time.perf_counter()
        packed = self._packed(state)
        job = Job(packed, state.step, records, self._copies.turn())
        with self._changed:
            self._waiting = job
            self._changed.notify_all()
        if self._thread is None:
            self._start()
        self.facts["copying"] += time.perf_counter() - began

    def _packed(self, state: State) -> Packed:
        try:
            return state.packed(self._copies.of)
        except (MemoryError, RuntimeError) as exc:  # torch's allocators raise the latter
            raise OutputError(
                f"no host memory for a copy of the state: {one_line(exc)}",
                remedy="leave it more: close other programs, or lower memory.ram",
            ) from exc

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="gatekit-checkpoint", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            self._waiting = None  # nobody would take it
            raise OutputError(
                f"no thread to write checkpoints: {one_line(exc)}", remedy="allow more processes"
            ) from exc
        self._thread = thread

    def drain(self) -> None:
        """Have what waits written now. Raises OutputError if the last one could not be."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting is None and not self._busy)
            self._hurry = False
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Stop; what waits is not written. No thread is left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        self._waiting = None

    def _run(self) -> None:
        rest = 0.0
        while (job := self._next(rest)) is not None:
            began = time.perf_counter()
            error: BaseException | None = None
            try:
                self._write(job)
            except BaseException as exc:  # told where it is asked for; the run must not end by it
                error = exc
            spent = time.perf_counter() - began
            self.facts["writing"] += spent
            rest = spent * (1 / SHARE - 1)
            with self._changed:
                untold = error is not None and self._error is None and not self._hurry
                self._error, self._busy = error, False
                self._changed.notify_all()
            if untold:
                with contextlib.suppress(Exception):  # whoever shows it may fail; this goes on
                    log.warning("no checkpoint of step %d: %s", job.step, error)

    def _next(self, rest: float) -> Job | None:
        """The newest state, once the thread has rested; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._hurry or self._closed, timeout=rest)
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            if self._closed:
                return None
            job, self._waiting, self._busy = self._waiting, None, True
            return job

    def _write(self, job: Job) -> None:
        job.arrived()
        data = checkpoint_bytes(job.packed, job.step, self.mark, job.records, self.conditioning)
        write_atomic(self.path, data, LATER)
        self.facts["written"] += 1
        self.facts["bytes"] = len(data)
        if self._wrote is not None:
            self._wrote(job.records)
