"""Passes of few tokens replayed as CUDA graphs: the GPU does not wait for Python to launch them.

A graph is one pass recorded with the addresses that it reads and writes. So what it reads stays
where it is: weights (graphs are dropped before them), and inputs of its own, into which those of
each pass are copied. What it writes is written again by the next replay: results are copies.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatekit import one_line

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("gatekit.wan22")

KEPT = 4  # graphs of one model: sizes of video, attention backends, compiled or not
SEEN = 16  # keys that are remembered of passes that ran once

Work = Callable[[], "Tensor"]
Capture = Callable[[Work], Work]


@dataclass(frozen=True)
class Captured:
    """One pass: where its inputs go, and what does it again and gives its output's memory."""

    given: tuple[Tensor, ...]
    replay: Work


class Graphs:
    """The graphs of one variant's model; ``drop`` before its weights go.

    Args:
        capture: Records some work, which it may do, and returns what does it again.
        kept: Graphs at most; the one replayed longest ago goes.

    Attributes:
        failed: Whether something could not be captured: nothing is tried again then.
    """

    def __init__(self, capture: Capture, kept: int = KEPT) -> None:
        self._capture, self._kept = capture, kept
        self._held: OrderedDict[Any, Captured] = OrderedDict()
        self._seen: OrderedDict[Any, None] = OrderedDict()
        self.failed = False

    def __len__(self) -> int:
        return len(self._held)

    def run(self, work: Callable[..., Tensor], given: tuple[Tensor, ...], how: Any) -> Tensor:
        """``work(*given)``: as it is the first time, captured the second, then replayed.

        Args:
            work: The model's pass, the same in every call.
            given: Its inputs, all on the device.
            how: What else decides which kernels run.
        """
        import torch

        layouts = ((t.shape, t.stride(), t.dtype) for t in given)  # strides decide kernels too
        key = (how, torch.is_inference_mode_enabled(), *layouts)
        if key not in self._held and (self.failed or self._new(key)):
            return work(*given)
        if key not in self._held and (why := self._hold(key, work, given)):
            self.failed = True
            self.drop()
            log.warning(
                "a pass could not be captured as a CUDA graph (%s); passes of few tokens are "
                "launched one by one, which is slower and changes nothing else",
                why,
            )
            return work(*given)
        held = self._held[key]
        self._held.move_to_end(key)
        for own, value in zip(held.given, given, strict=True):
            own.copy_(once(value))
        return held.replay().clone()

    def drop(self) -> None:
        """Forget every graph."""
        self._held.clear()
        self._seen.clear()

    def _new(self, key: Any) -> bool:
        """Whether a key comes for the first time."""
        if key in self._seen:
            return False
        self._seen[key] = None
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return True

    def _hold(self, key: Any, work: Callable[..., Tensor], given: tuple[Tensor, ...]) -> str:
        """Capture; returns what went wrong, and lets go of what that held in memory."""
        import torch

        try:
            with torch.inference_mode(False):  # what is made in it may not be written to outside
                own = tuple(torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device)
                            for t in map(once, given))  # fmt: skip
            for mine, value in zip(own, given, strict=True):
                mine.copy_(once(value))
            like = [mine.expand(value.shape) for mine, value in zip(own, given, strict=True)]
            self._held[key] = Captured(own, self._capture(lambda: work(*like)))
        except Exception as error:  # whatever a library raises: the pass is launched as it is
            return one_line(error)
        if len(self._held) > self._kept:
            self._held.popitem(last=False)
        return ""


def once(x: Tensor) -> Tensor:
    """A tensor without its repetitions, such as a text that serves a whole batch."""
    for i, (length, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
        if length > 1 and stride == 0:
            x = x.narrow(i, 0, 1)
    return x
