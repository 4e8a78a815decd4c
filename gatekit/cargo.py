"""Loads: what arrives on a device together, and how it is shared out to chunks on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from torch import Tensor

    from gatekit.chunks import Chunk

_ALIGNED = 256


@dataclass(eq=False)
class Piece:
    """Bytes of a file, and where they go.

    Attributes:
        path: The file.
        offset: First byte.
        count: How many.
        into: Contiguous uint8 tensor of ``count`` on the device; may be given later, before the
            load is opened.
        then: Called when they are there, on the stream that copied them: to decode them.
    """

    path: Path
    offset: int
    count: int
    into: Tensor | None = None
    then: Callable[[], object] | None = None


@dataclass(eq=False)
class Load:
    """Pieces that arrive together.

    Attributes:
        pieces: What to bring.
        open: Whether the memory they go to may be written.
        after: CUDA event to wait for before that, or None.
        arrived: Whether the copies are under way, or done.
        event: CUDA event of their end, once they arrived; None on a CPU.
        dropped: Whether nobody waits for it any longer.
        number: Its place among the loads of its carrier, which come one after the other.
    """

    pieces: Sequence[Piece]
    open: bool = True
    after: Any = None
    arrived: bool = False
    event: Any = None
    dropped: bool = False
    number: int = 0


@dataclass
class Cargo:
    """What one chunk carries: (piece, first byte in it, bytes, place in the chunk)."""

    load: Load
    parts: list[tuple[Piece, int, int, int]] = field(default_factory=list[Any])
    last: bool = False
    chunk: Chunk | None = None
    read: Future[None] | None = None


def cargos(load: Load, size: int) -> Iterator[Cargo]:
    """A load in chunks: small pieces together, large ones in parts."""
    cargo, at = Cargo(load), 0
    for piece in load.pieces:
        start, total = 0, piece.count
        while start < total:
            if at >= size:
                yield cargo
                cargo, at = Cargo(load), 0
            count = min(total - start, size - at)
            cargo.parts.append((piece, start, count, at))
            start, at = start + count, -(-(at + count) // _ALIGNED) * _ALIGNED
    cargo.last = True
    yield cargo
