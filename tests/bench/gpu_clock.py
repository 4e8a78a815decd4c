"""Times of work on a GPU: captured once as a graph, replayed, measured with events, median.

A graph leaves out what Python and the driver take to launch. On a CPU (a rehearsal) the work is
simply run and timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

REPEATS = 7


def seconds(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Median time of ``work``, which allocates nothing that outlives it."""
    if device.type != "cuda":
        work()
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compiles kernels, makes handles
        work()
        work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    return median(graph.replay, repeats)


def median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median time of ``work`` on the GPU, launched as it is."""
    found = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3)
    return sorted(found)[len(found) // 2]


def copy_rate(device: torch.device, size: int) -> float:
    """Bytes a second, read and written, of the best of three copies of ``size`` bytes."""
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return max(2 * size / seconds(lambda: target.copy_(source), device) for _ in range(3))
