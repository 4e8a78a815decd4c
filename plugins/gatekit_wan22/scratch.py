"""One buffer that every layer decodes its weight into, instead of one a layer.

What makes sharing safe is order. A layer decodes into the buffer and multiplies by it in one
call, on one stream: the next layer's decoding waits in the same stream behind that product.
Each stream has a buffer of its own, so streams do not wait for each other, and each thread has its
own, so two models that run in two threads never mix their calls. While a CUDA graph is captured, a
buffer comes from the graph's own memory, which lives as long as the graph.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.of: dict[tuple[str, int | None, int], Tensor] = {}
        self.views: dict[tuple[Any, ...], Tensor] = {}  # of them, by key, length and type


_buffers = _Buffers()


def scratch(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Uninitialised memory for ``count`` numbers, good until this thread asks again.

    It grows to the largest that was asked for and stays until ``release``.
    """
    import torch

    stream = 0
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return torch.empty(count, dtype=dtype, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream
    key = (device.type, device.index, stream)
    view = _buffers.views.get((key, count, dtype))
    if view is not None:
        return view
    wanted, held = count * dtype.itemsize, _buffers.of.get(key)
    with torch.inference_mode(False):  # what is made in it may not be written to outside
        if held is None or held.numel() < wanted:
            _buffers.views.clear()  # they hold the buffer that is to go
            held = None
            _buffers.of.pop(key, None)
            held = _buffers.of[key] = torch.empty(wanted, dtype=torch.uint8, device=device)
        view = _buffers.views[key, count, dtype] = held[:wanted].view(dtype)
    return view


def release() -> None:
    """Drop this thread's buffers. Products that still run keep theirs, by the stream's order."""
    _buffers.views.clear()
    _buffers.of.clear()
