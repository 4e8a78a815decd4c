"""A model's tensors in torch, out of memory maps of its files: no copy until one is asked for."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .header import Header, TensorInfo

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAP_NORESERVE = 0x4000  # of Linux; Python 3.11's mmap module does not name it


class MappedFile:
    """The bytes of what a header describes: one file, or several that are one model.

    A file is mapped when its first tensor is asked for, privately and copy-on-write, and
    claims no memory: a file larger than the RAM opens. A map is closed when the last
    tensor that views it is gone.
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self._bytes: dict[Path, Any] = {}

    def _of(self, path: Path) -> Any:
        """The file's bytes as a numpy array."""
        if path not in self._bytes:
            self._bytes[path] = _map(path)
        return self._bytes[path]

    def raw(self, info: TensorInfo) -> Tensor:
        """The stored bytes, one-dimensional uint8, not copied."""
        import torch

        content = self._of(info.file or self.header.path)
        return torch.from_numpy(content[info.offset : info.offset + info.nbytes])

    def scale(self, info: TensorInfo, device: str = "cpu") -> Tensor | None:
        """What the stored weights are multiplied by: float32 ``[1]`` or ``[rows]``, or None."""
        import torch

        if info.scale is None:
            return None
        # Cloned, as a view would keep the file mapped for four bytes.
        return self.read(info.scale, torch.float32, device).flatten().clone()

    def read(
        self,
        info: TensorInfo,
        dtype: torch.dtype,
        device: str = "cpu",
        shape: tuple[int, ...] | None = None,
    ) -> Tensor:
        """The weights in ``dtype`` on ``device``; not copied where they are so already.

        The stored bytes are moved and decoded on the device; an fp8 tensor's scale is applied.
        """
        from .dequantise import dequantise

        raw = self.raw(info).to(device)
        decoded = dequantise(raw, info.type, dtype, self.scale(info, device))
        return decoded.view(shape or info.shape)


def _map(path: Path) -> Any:
    import numpy as np

    with path.open("rb") as stream:
        if sys.platform == "linux":
            mapped = mmap.mmap(
                stream.fileno(),
                0,
                flags=mmap.MAP_PRIVATE | MAP_NORESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
        else:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    return np.frombuffer(mapped, dtype=np.uint8)
