"""Counter-keyed uniform numbers: a draw depends on (seed, index, stream) and on nothing else."""

from __future__ import annotations

import numpy as np

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(value: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014), elementwise on uint64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def uniforms(seed: int, index: np.ndarray, stream: int, count: int) -> np.ndarray:
    """Uniform numbers in [0, 1), shape [n, count], for each index on its own.

    Args:
        seed: any integer.
        index: the clips' indices, shape [n].
        stream: separates the draws of one clip that must not share numbers.
        count: how many numbers a clip gets.
    """
    base = np.array([((seed & _MASK) * _GOLDEN + stream) & _MASK], dtype=np.uint64)
    key = mix(mix(base) + index.astype(np.uint64) * np.uint64(_GOLDEN))
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    bits = mix(key[:, None] + steps[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
