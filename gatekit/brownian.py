"""A Brownian path over [0, 1], built by bisection (Levy), block by block.

W(0) = 0, W(1) is normal, and W in the middle of an interval is the mean of its ends plus a normal
deviate of a quarter of its length: each keyed by its own place, so that every grid sees one path.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gatekit.deviates import Stream

if TYPE_CHECKING:
    from torch import Tensor

DEPTH = 20  # places are rounded to 2^-DEPTH: about the 1e-6 within which sigmas are one


def block_at(place: int, stream: Stream, first: int, count: int) -> Tensor:
    """W at ``place`` / 2^DEPTH for a block of pairs: float64 ``[2, count]``, as ``Stream.fill``.

    One deviate a level, in buffers that stay in the cache: the cost is that of DEPTH noises.
    """
    import torch

    one = 1 << DEPTH
    low, high = 0, one
    tensors = torch.zeros(4, 2, count, dtype=torch.float64, device="cpu")
    w_low, w_high, noise, mean = tensors
    words = torch.empty(count, 2, dtype=torch.float64, device="cpu")
    if place == 0:
        return w_low
    stream.fill(high, first, w_high, words)
    while place not in (low, high):
        middle = (low + high) // 2
        stream.fill(middle, first, noise, words)
        noise.mul_(math.sqrt((high - low) / (4 << DEPTH)))
        noise.add_(torch.add(w_low, w_high, out=mean).mul_(0.5))
        if place < middle:
            high, w_high, noise = middle, noise, w_high
        else:
            low, w_low, noise = middle, noise, w_low
    return w_low if place == low else w_high
