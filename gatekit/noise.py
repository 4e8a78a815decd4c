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

from gatekit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, dtype

_WORD = (1 << 64) - 1
BROWNIAN_DEPTH = 24


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
        self._walk: dict[tuple[Any, ...], Any] = {}

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

        keys = self._keys(shape[0])
        values = self._deviates(keys, math.prod(shape[1:]), step, purpose, visit)
        return _arranged(values, shape).to(dtype or torch.float32)

    def like(self, x: Tensor, *, step: int, purpose: str = "step", visit: int = 0) -> Tensor:
        """``normal`` with the shape, dtype and device of ``x`` ``[B, ...]``."""
        noise = self.normal(x.shape, step=step, purpose=purpose, visit=visit, dtype=x.dtype)
        return noise.to(x.device)

    def brownian(self, x: Tensor, start: float, to: float, *, visit: int = 0) -> Tensor:
        """Normalised increment (W(start) - W(to)) / sqrt|start - to| of one Brownian path.

        The path runs over the whole of [0, 1], whatever grid looks at it, so increments over
        a cut interval add up: sqrt(a-c) B(a,c) = sqrt(a-b) B(a,b) + sqrt(b-c) B(b,c). Built by
        bisection (Levy), places rounded to 2^-24.

        Args:
            x: Gives shape ``[B, ...]``, dtype and device.
            start: Place in [0, 1] where the step starts.
            to: Place where it ends.
            visit: Renoisings since the run began; each has a path of its own.

        Raises:
            InputError: A place outside [0, 1], or the two coincide.
        """
        scale = 1 << BROWNIAN_DEPTH
        if not (0.0 <= start <= 1.0 and 0.0 <= to <= 1.0):
            raise InputError(
                "Brownian places lie in [0, 1]", value=(start, to), remedy="give sigmas of the path"
            )
        places = (round(start * scale), round(to * scale))
        if places[0] == places[1]:
            raise InputError(
                "a Brownian increment over no interval",
                value=(start, to),
                remedy="give places at least 2^-24 apart",
            )
        shape = tuple(x.shape)
        a, b = (self._remembered(place, shape, visit) for place in places)
        # Only a memo: the next interval starts where this one ends.
        self._walk = {(places[0], shape, visit): a, (places[1], shape, visit): b}
        increment = (a - b) * math.sqrt(scale / abs(places[0] - places[1]))
        return _arranged(increment, shape).to(x.dtype).to(x.device)

    def _remembered(self, place: int, shape: tuple[int, ...], visit: int) -> Any:
        known = self._walk.get((place, shape, visit))
        return self._brownian_at(place, shape, visit) if known is None else known

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

    def _deviates(
        self, keys: list[tuple[int, int]], size: int, step: int, purpose: str, visit: int
    ) -> Any:
        """Box-Muller: float64 array ``[len(keys), size]``, the first of an endless sequence."""
        import numpy

        pairs = (size + 1) // 2
        counter = numpy.array([0, step, purpose_word(purpose), visit], dtype=numpy.uint64)
        out = numpy.empty((len(keys), 2 * pairs))
        for row, key in zip(out, keys, strict=True):
            generator = numpy.random.Philox(
                key=numpy.array(key, dtype=numpy.uint64), counter=counter
            )
            words: Any = generator.random_raw(2 * pairs) >> numpy.uint64(11)
            radius = numpy.sqrt(-2.0 * numpy.log((words[0::2] + 1.0) * 2.0**-53))
            angle = words[1::2] * (2.0 * math.pi * 2.0**-53)
            row[0::2] = radius * numpy.cos(angle)
            row[1::2] = radius * numpy.sin(angle)
        return out[:, :size]

    def _brownian_at(self, place: int, shape: tuple[int, ...], visit: int) -> Any:
        """W at ``place`` / 2^24, float64 ``[B, size]``, by bisection from W(0) = 0."""
        keys, size = self._keys(shape[0]), math.prod(shape[1:])
        low, high = 0, 1 << BROWNIAN_DEPTH
        w_low: Any = 0.0
        w_high: Any = self._deviates(keys, size, high, "brownian", visit)
        while place not in (low, high):
            middle = (low + high) // 2
            spread = math.sqrt((high - low) / (4 << BROWNIAN_DEPTH))
            w_middle = (w_low + w_high) / 2 + spread * self._deviates(
                keys, size, middle, "brownian", visit
            )
            if place < middle:
                high, w_high = middle, w_middle
            else:
                low, w_low = middle, w_middle
        if place == low:
            return w_low if low else w_high * 0.0
        return w_high


def _arranged(values: Any, shape: Sequence[int]) -> Tensor:
    """Deviates ``[B, size]`` as a tensor of ``shape``; in a video, time runs slowest."""
    import torch

    flat: Tensor = torch.from_numpy(values)  # pyright: ignore[reportUnknownMemberType]
    if len(shape) == 5:
        batch, channels, frames, height, width = shape
        framewise = flat.reshape(batch, frames, channels, height, width)
        return framewise.transpose(1, 2).contiguous()
    return flat.reshape(tuple(shape))
