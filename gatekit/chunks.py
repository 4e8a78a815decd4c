"""Chunks: host memory of one size, pinned where a GPU copies from it, lent out and taken back."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

from gatekit.errors import GatekitError
from gatekit.sizetext import as_setting
from gatekit.sizetext import size as told

CHUNK = 32 << 20  # of a power of two: torch rounds pinned memory up to one
LEAST = 4  # chunks that reading and copying need to overlap, for two models at once


@dataclass(eq=False)
class Chunk:
    """One piece of memory.

    Attributes:
        memory: uint8 tensor.
        copied: CUDA event after which it may be written again; None where it may be at once.
    """

    memory: Any
    copied: Any = None


class ChunkPool:
    """At most ``limit`` bytes of host memory in chunks, each made when it is first wanted.

    Args:
        limit: Bytes that may be taken.
        pinned: Whether a GPU copies from them.
        size: Bytes of a chunk; fewer where ``limit`` holds no ``LEAST`` of them.
    """

    def __init__(self, limit: int, pinned: bool, size: int = CHUNK) -> None:
        while size > 1 and size * LEAST > limit:
            size //= 2
        self.size, self.pinned, self.most = size, pinned, limit // size
        self.made = 0
        self._free: deque[Chunk] = deque()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes taken so far."""
        return self.made * self.size

    def take(self, wait: bool) -> Chunk | None:
        """A chunk that may be written; None where there is none.

        Args:
            wait: Wait for a copy out of one that was given back, instead of returning None.
        """
        with self._lock:
            chunk = self._free.popleft() if self._free else None
            if chunk is None or not (wait or _over(chunk)):
                if chunk is not None:
                    self._free.appendleft(chunk)
                if self.made >= self.most:
                    return None
                self.made += 1
                chunk = None
        if chunk is None:
            return self._make()
        if chunk.copied is not None:
            chunk.copied.synchronize()
            chunk.copied = None
        return chunk

    def _make(self) -> Chunk:
        import torch

        try:
            return Chunk(torch.empty(self.size, dtype=torch.uint8, pin_memory=self.pinned))
        except BaseException as error:
            with self._lock:
                self.made -= 1
                had = self.bytes
            if not isinstance(error, RuntimeError):
                raise
            kind = "pinned host memory" if self.pinned else "host memory"
            raise GatekitError(
                f"no {kind} to read weights through beyond {told(had)}: "
                f"{str(error).partition(chr(10))[0]}",
                remedy=f"allow less: --set memory.ram={as_setting(max(had, LEAST << 20))}",
            ) from error

    def give(self, chunk: Chunk) -> None:
        """Take a chunk back; it is lent again once its ``copied`` is over."""
        with self._lock:
            self._free.append(chunk)

    def close(self) -> None:
        """Give the memory back to the system; for when every chunk was given back."""
        with self._lock:
            while self._free:
                chunk = self._free.popleft()
                if chunk.copied is not None:
                    chunk.copied.synchronize()
                self.made -= 1
        if self.pinned:
            import torch

            with contextlib.suppress(AttributeError, RuntimeError):  # torch keeps pinned memory
                torch._C._host_emptyCache()  # pyright: ignore


def _over(chunk: Chunk) -> bool:
    return chunk.copied is None or chunk.copied.query()
