"""Normal deviates by block: Philox words, Box-Muller in float64, on as many threads as torch has.

Words 2i and 2i + 1 of the counter's endless stream become the deviates 2i and 2i + 1. So any block
can be made alone, in a core's cache, and neither threads nor their number change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 12288  # pairs: what a block works on stays in a core's cache, below torch's own threads
WORDS = 4  # of one count of Philox 4x64


@dataclass(frozen=True)
class Stream:
    """One row's source of deviates.

    Attributes:
        key: Philox key: (seed, sample).
        purpose: Of the noise, as one word.
        visit: Renoisings since the run began.
        size: Deviates in a row.
    """

    key: tuple[int, int]
    purpose: int
    visit: int
    size: int

    @property
    def pairs(self) -> int:
        """Pairs in a row."""
        return (self.size + 1) // 2

    def fill(self, step: int, first: int, out: Tensor, words: Tensor) -> None:
        """Deviates of ``step``, from pair ``first`` on.

        Args:
            step: First word of the counter.
            first: Number of the first pair.
            out: Float64 ``[2, n]``: the first and the second of each pair.
            words: Float64 ``[n, 2]``, overwritten.
        """
        import torch

        self._uniforms(step, first, words)
        radius = out[0].copy_(words[:, 0])
        radius.add_(2.0**-53).log_().mul_(-2.0).sqrt_()
        angle = torch.mul(words[:, 1], 2.0 * math.pi, out=out[1])
        cosine = torch.cos(angle, out=words.view(2, -1)[0])
        angle.sin_().mul_(radius)
        radius.mul_(cosine)

    def _uniforms(self, step: int, first: int, out: Tensor) -> None:
        """(word >> 11) / 2^53 of the words from 2 ``first`` on, without holding Python's lock."""
        import numpy

        count, skipped = divmod(2 * first, WORDS)
        bits = numpy.random.Philox(
            key=numpy.array(self.key, dtype=numpy.uint64),
            counter=numpy.array([count, step, self.purpose, self.visit], dtype=numpy.uint64),
        )
        if skipped:
            bits.random_raw(skipped)
        numpy.random.Generator(bits).random(out=_array(out.view(-1)))


def place(row: Tensor, first: int, made: Tensor) -> None:
    """Write a block ``[2, n]`` where it belongs in ``row`` ``[size]``, rounded to its dtype."""
    there = row[2 * first : 2 * (first + made.shape[1])]
    if there.shape[0] % 2:  # the last pair of an odd row
        there[-1] = made[0, -1]
        there, made = there[:-1], made[:, :-1]
    there.view(-1, 2).copy_(made.T)


def block_of(row: Tensor, first: int, count: int) -> Tensor:
    """The part of a row ``[size]`` that a block of pairs makes."""
    return row[2 * first : 2 * (first + count)]


def each_block(streams: Sequence[Stream], work: Callable[[int, Stream, int, int], None]) -> None:
    """Call ``work(row, stream, first, count)`` for every block of every row, on torch's threads.

    Inference mode is a thread's own, and what is made in it cannot be written outside: each
    thread works in the caller's.
    """
    import torch

    jobs = [
        (row, stream, first, min(BLOCK, stream.pairs - first))
        for row, stream in enumerate(streams)
        for first in range(0, stream.pairs, BLOCK)
    ]
    workers = min(torch.get_num_threads(), len(jobs))
    if workers < 2:
        for job in jobs:
            work(*job)
        return
    from concurrent.futures import ThreadPoolExecutor

    inference = torch.is_inference_mode_enabled()

    def as_the_caller(job: tuple[int, Stream, int, int]) -> None:
        with torch.inference_mode(inference):
            work(*job)

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(as_the_caller, jobs):
            pass


def normal_rows(streams: Sequence[Stream], step: int, out: Tensor) -> None:
    """Fill ``out`` ``[len(streams), size]``, of any floating dtype, rounded from float64."""
    import torch

    def work(row: int, stream: Stream, first: int, count: int) -> None:
        made = torch.empty(2, 2, count, dtype=torch.float64, device="cpu")
        stream.fill(step, first, made[0], made[1].view(count, 2))
        place(out[row], first, made[0])

    each_block(streams, work)


def _array(tensor: Tensor) -> Any:
    return tensor.numpy()  # pyright: ignore[reportUnknownMemberType]
