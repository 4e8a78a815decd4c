"""Clocks for benchmarks: time of this thread, of the wall, or of a GPU's stream."""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch


class Stopwatch(ABC):
    """Marks are taken while things run, and compared when all is over."""

    name: str

    @abstractmethod
    def mark(self) -> Any:
        """Now."""

    @abstractmethod
    def seconds(self, began: Any, ended: Any) -> float:
        """Between two marks."""

    @abstractmethod
    def typical(self, seconds: Iterable[float]) -> float:
        """What counts of several measurements of the same."""


class HostWatch(Stopwatch):
    """CPU time of this thread, so that a busy machine does not count, or wall time; the fastest."""

    def __init__(self, threads: int) -> None:
        self._clock = time.thread_time if threads == 1 else time.perf_counter
        self.name = f"{'CPU' if threads == 1 else 'wall'} time, fastest"

    def mark(self) -> float:
        return self._clock()

    def seconds(self, began: float, ended: float) -> float:
        return ended - began

    def typical(self, seconds: Iterable[float]) -> float:
        return min(seconds)


class StreamWatch(Stopwatch):
    """CUDA events on the current stream: what the GPU did, idle time included; the median."""

    name = "CUDA events, median"

    def mark(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, began: Any, ended: Any) -> float:
        ended.synchronize()
        return began.elapsed_time(ended) / 1e3  # it gives milliseconds

    def typical(self, seconds: Iterable[float]) -> float:
        return statistics.median(seconds)


def stopwatch(device: torch.device, threads: int) -> Stopwatch:
    """The one for a device.

    Raises:
        SystemExit: A device that is not there.
    """
    if device.type == "cpu":
        return HostWatch(threads)
    if device.type != "cuda" or not torch.cuda.is_available():
        raise SystemExit(f"no device {str(device)!r} here; give cpu, or cuda where a GPU is")
    return StreamWatch()
