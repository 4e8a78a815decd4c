"""A model's tensors in torch, out of memory maps of its files: no copy until one is asked for."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit import cut_short, read_into

from .header import Header, TensorInfo
from .incoming import Incoming

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
        self._incoming: Incoming | None = None

    @contextmanager
    def coming(self, infos: Iterable[TensorInfo], device: str) -> Iterator[None]:
        """Bring tensors to a GPU ahead of being asked for, in this order; on a CPU nothing."""
        if device == "cpu":
            yield
            return
        places = ((info.file or self.header.path, info) for info in infos)
        self._incoming = Incoming(places, device)
        try:
            yield
        finally:
            self._incoming.close()
            self._incoming = None

    def _of(self, path: Path) -> Any:
        """The file's bytes as a numpy array."""
        if path not in self._bytes:
            self._bytes[path] = _map(path)
        return self._bytes[path]

    def raw(self, info: TensorInfo, device: str = "cpu") -> Tensor:
        """The stored bytes on ``device``, one-dimensional uint8; on a CPU not copied.

        Raises:
            WeightsError: The file ends before them. A touch of the map beyond the end would end the
                process, so what goes to another device is read from the file instead.
        """
        import torch

        path = info.file or self.header.path
        if device != "cpu":
            came = None if self._incoming is None else self._incoming.take(path, info)
            return _read(path, info).to(device) if came is None else came
        content = self._of(path)
        if _bytes_left(path, content) < info.offset + info.nbytes:
            raise cut_short(path)
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

        raw = self.raw(info, device)
        decoded = dequantise(raw, info.type, dtype, self.scale(info, device))
        return decoded.view(shape or info.shape)


def _read(path: Path, info: TensorInfo) -> Tensor:
    import torch

    memory = torch.empty(info.nbytes, dtype=torch.uint8)
    array: Any = memory.numpy()
    read_into(path, info.offset, memoryview(array))
    return memory


def _bytes_left(path: Path, content: Any) -> int:
    """Bytes of a map that the file under it still has, as far as its name tells."""
    try:
        return min(path.stat().st_size, len(content))
    except OSError:  # removed: what is mapped stays
        return len(content)


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
