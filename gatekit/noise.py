"""Noise as a pure function of (seed, sample, step, purpose).

Counter-based: Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) keyed by (seed, sample) and counting from (step, purpose, visit); Box-Muller in
float64; rounded to the state's dtype, on the CPU. So each device gets the same noise, and
cutting a phase in two, resuming, or batching changes no bit. numpy's Philox supplies the
words: its stream for an explicit key and counter is fixed by numpy's compatibility policy.

Each (seed, sample, step, purpose) names one endless sequence of deviates, of which a tensor takes
the first: neighbouring words make a pair, so what is drawn does not depend on how much is drawn.
A video [B, C, T, H, W] takes them frame by frame: a longer video begins with the same noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatekit.brownian import DEPTH, block_at
from gatekit.deviates import Stream, block_of, each_block, normal_rows, place
from gatekit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, dtype

_WORD = (1 << 64) - 1


def purpose_word(purpose: str) -> int:
    """A purpose's name as one 64-bit word."""
    return int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=8).digest(), "little")


class NoiseSource:
    """Every normal deviate of a run.

    Args:
        seed: An int, and sample b of a batch uses (seed, b); or one int a sample, each then
            as if it ran alone under that seed. Any int of 64 bits, signed or not.

    Raises:
        InputError: The seed is no int, or no sequence of ints.
    """

    def __init__(self, seed: int | Sequence[int]) -> None:
        seeds = list(seed) if isinstance(seed, Sequence) else [seed]
        if not seeds or not all(
            isinstance(s, int) and not isinstance(s, bool) and -(1 << 63) <= s <= _WORD  # pyright: ignore[reportUnnecessaryIsInstance]
            for s in seeds
        ):
            raise InputError(
                "a seed is an integer of 64 bits, or one such integer a sample",
                value=seed,
                remedy="give a whole number, such as 0",
            )
        self.seed = seed if isinstance(seed, int) else tuple(seeds)
        self._walk: dict[tuple[Any, ...], Tensor] = {}

    def normal(
        self,
        shape: Sequence[int],
        *,
        step: int,
        purpose: str = "step",
        visit: int = 0,
        dtype: dtype | None = None,
    ) -> Tensor:
        """Standard normal deviates on the CPU.

        Args:
            shape: ``[B, ...]``; each sample of the batch has a key of its own. With five axes
                ``[B, C, T, H, W]``, frame t has the same noise whatever T is.
            step: Intervals taken since the run began.
            purpose: What the noise is for; the same (step, purpose) gives the same noise.
            visit: Renoisings since the run began (Brownian paths are keyed by it).
            dtype: float32 if None.

        Raises:
            InputError: The batch and the number of seeds differ.
        """
        import torch

        streams = self._streams(shape, purpose, visit)
        size = (shape[0], math.prod(shape[1:]))
        values = torch.empty(size, dtype=dtype or torch.float32, device="cpu")
        normal_rows(streams, step, values)
        return _arranged(values, shape)

    def like(self, x: Tensor, *, step: int, purpose: str = "step", visit: int = 0) -> Tensor:
        """``normal`` with the shape, dtype and device of ``x`` ``[B, ...]``."""
        noise = self.normal(x.shape, step=step, purpose=purpose, visit=visit, dtype=x.dtype)
        return noise.to(x.device)

    def brownian(self, x: Tensor, start: float, to: float, *, visit: int = 0) -> Tensor:
        """Normalised increment (W(start) - W(to)) / sqrt|start - to| of one Brownian path.

        The path runs over the whole of [0, 1], whatever grid looks at it, so increments over
        a cut interval add up: sqrt(a-c) B(a,c) = sqrt(a-b) B(a,b) + sqrt(b-c) B(b,c). Built by
        bisection (Levy), places rounded to 2^-20.

        Args:
            x: Gives shape ``[B, ...]``, dtype and device.
            start: Place in [0, 1] where the step starts.
            to: Place where it ends.
            visit: Renoisings since the run began; each has a path of its own.

        Raises:
            InputError: A place outside [0, 1], or the two coincide.
        """
        import torch

        scale = 1 << DEPTH
        if not (0.0 <= start <= 1.0 and 0.0 <= to <= 1.0):
            raise InputError(
                "Brownian places lie in [0, 1]", value=(start, to), remedy="give sigmas of the path"
            )
        places = (round(start * scale), round(to * scale))
        if places[0] == places[1]:
            raise InputError(
                "a Brownian increment over no interval",
                value=(start, to),
                remedy="give places at least 2^-20 apart",
            )
        streams = self._streams(x.shape, "brownian", visit)
        keys = [(at, tuple(x.shape), visit) for at in places]
        known = [self._walk.get(key) for key in keys]
        size = (len(streams), streams[0].size)
        ends = [torch.empty(size, dtype=torch.float64, device="cpu") for _ in "ab"]
        ends = [end if old is None else old for end, old in zip(ends, known, strict=True)]
        out = torch.empty(size, dtype=x.dtype, device="cpu")
        factor = math.sqrt(scale / abs(places[0] - places[1]))

        def work(row: int, stream: Stream, first: int, count: int) -> None:
            for at, end, old in zip(places, ends, known, strict=True):
                if old is None:
                    place(end[row], first, block_at(at, stream, first, count))
            a, b, increment = (block_of(t[row], first, count) for t in (*ends, out))
            increment.copy_(torch.sub(a, b).mul_(factor))

        each_block(streams, work)
        # Only a memo: the next interval starts where this one ends.
        self._walk = dict(zip(keys, ends, strict=True))
        return _arranged(out, x.shape).to(x.device)

    def _streams(self, shape: Sequence[int], purpose: str, visit: int) -> list[Stream]:
        """One a sample."""
        size, word = math.prod(shape[1:]), purpose_word(purpose)
        return [Stream(key, word, visit, size) for key in self._keys(shape[0])]

    def _keys(self, batch: int) -> list[tuple[int, int]]:
        if isinstance(self.seed, int):
            return [(self.seed & _WORD, sample) for sample in range(batch)]
        if len(self.seed) != batch:
            raise InputError(
                f"{len(self.seed)} seeds for a batch of {batch}",
                value=self.seed,
                remedy="give one seed a sample, or a single integer",
            )
        return [(seed & _WORD, 0) for seed in self.seed]


def _arranged(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Deviates ``[B, size]`` as a tensor of ``shape``; in a video, time runs slowest."""
    if len(shape) == 5:
        batch, channels, frames, height, width = shape
        framewise = rows.reshape(batch, frames, channels, height, width)
        return framewise.transpose(1, 2).contiguous()
    return rows.reshape(tuple(shape))
