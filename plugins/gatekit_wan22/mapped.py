"""A weight file's tensors in torch, out of one memory map: no copy until one is asked for."""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING

from .header import Header, TensorInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAP_NORESERVE = 0x4000  # of Linux; Python 3.11's mmap module does not name it


class MappedFile:
    """The bytes of a file whose header was read; GGUF and safetensors alike.

    The map is private and copy-on-write, and claims no memory: a file larger than the RAM
    opens. It is closed when the last tensor that views it is gone.
    """

    def __init__(self, header: Header) -> None:
        import numpy as np

        self.header = header
        with header.path.open("rb") as stream:
            if sys.platform == "linux":
                mapped = mmap.mmap(
                    stream.fileno(),
                    0,
                    flags=mmap.MAP_PRIVATE | MAP_NORESERVE,
                    prot=mmap.PROT_READ | mmap.PROT_WRITE,
                )
            else:
                mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
        self._bytes = np.frombuffer(mapped, dtype=np.uint8)

    def raw(self, info: TensorInfo) -> Tensor:
        """The stored bytes, one-dimensional uint8, not copied."""
        import torch

        return torch.from_numpy(self._bytes[info.offset : info.offset + info.nbytes])

    def read(
        self,
        info: TensorInfo,
        dtype: torch.dtype,
        device: str = "cpu",
        shape: tuple[int, ...] | None = None,
    ) -> Tensor:
        """The weights in ``dtype`` on ``device``; not copied where they are so already.

        Quantised tensors are moved as blocks and decoded on the device.
        """
        from .dequantise import dequantise

        raw = self.raw(info)
        if info.quantised:
            raw = raw.to(device)
        return dequantise(raw, info.type, dtype).to(device).view(shape or info.shape)
