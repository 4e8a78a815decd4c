"""Carrier: bytes of weight files on their way to a device, in the background.

A thread takes loads in order. Readers fill chunks of host memory straight from the files, so what
lies in the page cache is copied once on the host; from there it is copied to the device on a
stream of its own. On a CPU the same thread copies by itself. Reading runs ahead of copying: a
load that is not open yet waits in its chunks.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gatekit.cargo import Cargo, Load, Piece, cargos
from gatekit.errors import GatekitError
from gatekit.filebytes import Files

if TYPE_CHECKING:
    from pathlib import Path

    from gatekit.chunks import Chunk, ChunkPool

READERS = max(1, min(6, (os.cpu_count() or 1) // 2))
_WINDOW = 8 << 20


class Carrier:
    """Brings loads to one device.

    Args:
        device: Where to.
        pool: Host memory on the way.
        most: Chunks that may be filled and waiting; all of the pool's if None.
    """

    def __init__(self, device: str, pool: ChunkPool, most: int | None = None) -> None:
        self.device, self.pool = device, pool
        self.most = max(1, pool.most if most is None else most)
        self.read_bytes = self._sent = 0
        self._cuda = device.partition(":")[0] == "cuda"
        self._changed = threading.Condition()
        self._waiting: deque[Cargo] = deque()  # not read yet
        self._filled: deque[Cargo] = deque()  # being read, or read
        self._closed = False
        self._error: BaseException | None = None
        self._files = Files()
        self._readers = ThreadPoolExecutor(READERS, "gatekit-read")
        self._expecting = ThreadPoolExecutor(1, "gatekit-expect")  # a slow disk lets it wait
        self._stream: Any = None
        if self._cuda:
            import torch

            self._stream = torch.cuda.Stream(device)
        self._thread = threading.Thread(target=self._run, name="gatekit-carry", daemon=True)
        self._thread.start()

    def send(self, pieces: Sequence[Piece], *, open: bool = True, after: Any = None) -> Load:
        """Bring these after all that was sent before; not to be copied yet unless ``open``."""
        load = Load(tuple(pieces), open, after)
        with self._changed:
            self._sent += 1
            load.number = self._sent
            self._waiting.extend(cargos(load, self.pool.size))
            self._changed.notify_all()
        return load

    def expect(self, ranges: Sequence[tuple[Path, int, int]]) -> None:
        """Have the system read (path, offset, bytes) into its page cache, in this order."""
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            self._expecting.submit(self._expect, tuple(ranges))

    def _expect(self, ranges: Sequence[tuple[Path, int, int]]) -> None:
        for path, offset, count in ranges:
            for start in range(0, count, _WINDOW):
                if self._closed:
                    return
                with contextlib.suppress(OSError):  # reading the bytes will say what is wrong
                    self._files.expect(path, offset + start, min(_WINDOW, count - start))

    def open(self, load: Load, after: Any = None) -> None:
        """Let a load be copied, once the event ``after`` is over."""
        with self._changed:
            load.after, load.open = after, True
            self._changed.notify_all()

    def drop(self, loads: Sequence[Load]) -> None:
        """Forget loads: what was not copied yet will not be."""
        with self._changed:
            for load in loads:
                load.dropped = True
            self._waiting = deque(c for c in self._waiting if not c.load.dropped)
            self._changed.notify_all()

    def wait(self, load: Load) -> None:
        """Return when a load is there; on a GPU, when what runs from now on will find it there.

        Raises:
            GatekitError: It could not be read or copied.
        """
        with self._changed:
            self._changed.wait_for(lambda: load.arrived or self._error or self._closed)
            if not load.arrived:
                raise self._failure()
        if load.event is not None:
            import torch

            torch.cuda.current_stream(self.device).wait_event(load.event)

    def _failure(self) -> BaseException:
        error = self._error
        if error is None:
            return GatekitError(
                "weights were wanted after their model was unloaded", remedy="load it again"
            )
        if isinstance(error, GatekitError | MemoryError) or "OutOfMemory" in type(error).__name__:
            return error
        failure = GatekitError(
            f"weights could not be read: {error}",
            remedy="check the disk, and that the file is whole",
        )
        failure.__cause__ = error
        return failure

    def close(self) -> None:
        """Stop, and wait for what is under way; idempotent. No thread is left."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        for threads in (self._readers, self._expecting):
            threads.shutdown(wait=True, cancel_futures=True)
        self._thread.join()
        if self._stream is not None:
            self._stream.synchronize()
        self._files.close()

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._changed.notify_all()
        finally:
            for cargo in self._filled:
                if cargo.read is not None and not cargo.read.cancel():
                    cargo.read.exception()  # waits for it
                if cargo.chunk is not None:
                    self.pool.give(cargo.chunk)
            self._filled.clear()

    def _turn(self) -> bool:
        """Read what there is room for, and copy the next cargo; False when closed."""
        more = self._fill()
        with self._changed:
            if self._closed:
                return False
            head = self._filled[0] if self._filled else None
            if head is None or not (head.load.open or head.load.dropped):
                if not more:
                    # A chunk that another carrier gives back is not announced: look again.
                    self._changed.wait(0.02 if self._waiting else None)
                return True
        assert head.read is not None and head.chunk is not None
        head.read.result()
        if not head.load.dropped:
            self._copy(head, head.chunk)
        self._filled.popleft()
        self.pool.give(head.chunk)
        return True

    def _fill(self) -> bool:
        """Start reading what waits, while there are chunks; whether anything was started.

        What is read and open is copied first: the first chunks of pinned memory take their time.
        """
        started = False
        while len(self._filled) < self.most and not (started and self._ready()):
            with self._changed:
                if self._closed or not self._waiting:
                    break
            chunk = self.pool.take(wait=not self._filled)
            if chunk is None:
                break
            with self._changed:
                cargo = self._waiting.popleft() if self._waiting else None
            if cargo is None:
                self.pool.give(chunk)
                break
            cargo.chunk = chunk
            self._filled.append(cargo)
            try:
                cargo.read = self._readers.submit(self._read, cargo, chunk)
            except RuntimeError:  # closed meanwhile
                break
            started = True
        return started

    def _ready(self) -> bool:
        """Whether the next cargo can be copied."""
        head = self._filled[0]
        return head.load.open and head.read is not None and head.read.done()

    def _read(self, cargo: Cargo, chunk: Chunk) -> None:
        memory = memoryview(chunk.memory.numpy())
        for piece, start, count, at in cargo.parts:
            self._files.read(piece.path, piece.offset + start, memory[at : at + count])
            with self._changed:
                self.read_bytes += count

    def _copy(self, cargo: Cargo, chunk: Chunk) -> None:
        """Copy a chunk to the device, and decode what is complete with it."""
        if not self._cuda:
            self._copy_parts(cargo, chunk)
            self._end(cargo, None)
            return
        import torch

        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            if cargo.load.after is not None:
                self._stream.wait_event(cargo.load.after)
                cargo.load.after = None
            self._copy_parts(cargo, chunk)
            event = torch.cuda.Event()
            event.record(self._stream)
        chunk.copied = event
        self._end(cargo, event)

    def _copy_parts(self, cargo: Cargo, chunk: Chunk) -> None:
        for piece, start, count, at in cargo.parts:
            source = chunk.memory[at : at + count]
            assert piece.into is not None
            piece.into[start : start + count].copy_(source, non_blocking=self._cuda)
            if piece.then is not None and start + count == piece.count:
                piece.then()

    def _end(self, cargo: Cargo, event: Any) -> None:
        if cargo.last:
            with self._changed:
                cargo.load.event, cargo.load.arrived = event, True
                self._changed.notify_all()
