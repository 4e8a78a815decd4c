"""Tensors of a file on their way to a GPU: read some way ahead of where they are asked for.

A model that is loaded as a whole takes its tensors one after the other. Read one by one into fresh
memory they come at 1.5 GB/s; read ahead by several threads into pinned memory, and copied while
the next ones are read, about ten times as fast.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit import Carrier, ChunkPool, GatekitError, Load, Piece, WeightsError

from .header import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("gatekit.wan22")
AHEAD = 768 << 20  # bytes of the device that may be filled before they are asked for
PINNED = 512 << 20
SMALL = 1 << 20  # below, a tensor is read when it is asked for


class Incoming:
    """Large tensors of one model, in the order in which they will be asked for.

    Args:
        places: For each tensor where it lies.
        device: Where to.
    """

    def __init__(self, places: Iterable[tuple[Path, TensorInfo]], device: str) -> None:
        self.device = device
        self._waiting = deque((p, i) for p, i in places if i.nbytes >= SMALL)
        self._coming: dict[tuple[Path, int], tuple[Load, Tensor]] = {}
        self._ahead = 0
        self._pool = ChunkPool(PINNED, pinned=device.startswith("cuda"))
        self._carrier = Carrier(device, self._pool)

    def take(self, path: Path, info: TensorInfo) -> Tensor | None:
        """The bytes of a tensor, on the device; None of one that does not come this way.

        Raises:
            WeightsError: The file ends before them, or cannot be read.
        """
        key = (path, info.offset)
        self._send()
        if key not in self._coming:
            return None
        load, memory = self._coming.pop(key)
        try:
            self._carrier.wait(load)
        except WeightsError:
            raise
        except GatekitError as error:  # no pinned memory, or no more of it: it goes without
            log.info("weights are read one by one: %s", error)
            self.close()
            return None
        self._ahead -= info.nbytes
        self._send()
        return memory

    def _send(self) -> None:
        import torch

        while self._waiting and (self._ahead < AHEAD or not self._coming):
            path, info = self._waiting.popleft()
            with torch.inference_mode(False):  # a thread that is in no such mode writes to it
                memory = torch.empty(info.nbytes, dtype=torch.uint8, device=self.device)
            after = None
            if self.device.startswith("cuda"):  # what used this memory before has to be over
                after = torch.cuda.Event()
                after.record(torch.cuda.current_stream(self.device))
            piece = Piece(path, info.offset, info.nbytes, memory)
            self._coming[path, info.offset] = self._carrier.send([piece], after=after), memory
            self._ahead += info.nbytes

    def close(self) -> None:
        """Stop what is under way, and give the host memory back; idempotent."""
        self._carrier.close()
        self._coming.clear()
        self._waiting.clear()
        self._pool.close()
