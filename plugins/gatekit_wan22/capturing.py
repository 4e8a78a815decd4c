"""Some work captured as a CUDA graph."""

from __future__ import annotations

import contextlib
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from .scratch import release

if TYPE_CHECKING:
    from torch import Tensor

    from .graphs import Work

_turn = threading.Lock()  # a process captures one graph at a time


class CudaCapture:
    """Captures the passes of one model; its graphs share their memory.

    That is safe as they run one after another on one stream, read nothing of it that another
    wrote, and their results are copied before the next runs.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._pool: Any = None

    def __call__(self, work: Work) -> Work:
        """Do the work once, capture it, and return what does it again.

        Other threads may use the device meanwhile, but for its default random numbers.
        """
        import torch

        with _turn, torch.cuda.device(self.device):
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            before, side = torch.cuda.current_stream(), _side(torch.cuda.current_device())
            graph, begun = torch.cuda.CUDAGraph(), False
            try:
                side.wait_stream(before)
                with torch.cuda.stream(side):  # makes the handles and workspaces of this stream
                    work()
                before.wait_stream(side)
                release()  # a graph decodes weights into memory of its own
                begun = True
                with torch.cuda.graph(graph, self._pool, side, "thread_local"):
                    out = work()
            except BaseException:
                if begun:
                    _abandon(self._pool)
                raise
            finally:  # where a capture cannot be ended, torch stays on the side stream
                torch.cuda.set_stream(before)

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay


def _abandon(pool: Any) -> None:
    """Let torch's memory know that a capture is over which the driver did not end in order.

    torch tells it only after the driver, and gives no memory back while it believes in a capture.
    """
    import torch

    index, inner = torch.cuda.current_device(), cast("Any", torch._C)
    with contextlib.suppress(RuntimeError, AttributeError):  # it was told
        inner._cuda_endAllocateToPool(index, pool)
        inner._cuda_releasePool(index, pool)


@cache
def _side(index: int) -> Any:
    """The stream that captures on a GPU: cuBLAS keeps memory for each stream that it has seen."""
    import torch

    return torch.cuda.Stream(index)
