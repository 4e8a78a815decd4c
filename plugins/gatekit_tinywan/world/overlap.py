"""Tables of how far two shapes overlap at an offset, so that layouts are checked by look-up."""

from __future__ import annotations

import functools

import numpy as np
import torch

from gatekit_tinywan.world.attributes import SHAPES, SIZES
from gatekit_tinywan.world.shapes import coverage, distances

RADII = (10.5, 14.2)  # equivalent radius of SIZES, in pixels of the 96 x 96 picture
GAP = 4.0  # things that stay apart keep this distance
_REACH = 64  # offsets beyond this many pixels never touch


@functools.cache
def _table(gap: float) -> np.ndarray:
    """Overlap over the smaller area, [shape, shape, size, size, dy, dx], first thing widened."""
    grid = torch.arange(2 * _REACH) - float(_REACH)
    x, y = grid[None, :], grid[:, None]
    rows = [torch.stack(distances(x, y, torch.tensor(r))) for r in RADII]
    field = torch.stack(rows, dim=1)  # [shape, size, H, W]
    still, wide = (torch.fft.rfft2(coverage(field - g)) for g in (0.0, gap))
    # Correlation: sum over p of wide(p) still(p - d) is the overlap with the second at offset d.
    product = wide[:, None, :, None] * still[None, :, None, :].conj()
    overlap = torch.fft.irfft2(product, s=(2 * _REACH, 2 * _REACH))
    area = np.pi * np.minimum.outer(np.square(RADII), np.square(RADII))
    return (overlap.numpy() / area[None, None, :, :, None, None]).astype(np.float32)


def overlap_fraction(
    shape: np.ndarray, size: np.ndarray, offset: np.ndarray, gap: float = 0.0
) -> np.ndarray:
    """Overlap as a part of the smaller thing's area.

    Args:
        shape: codes, [n, 2].
        size: codes, [n, 2].
        offset: second centre minus first, (x, y) in pixels, [n, T, 2].
        gap: how much the first thing is widened on every side.

    Returns:
        [n, T], near 0 where they do not meet.
    """
    table = _table(gap)
    assert table.shape[:4] == (len(SHAPES), len(SHAPES), len(SIZES), len(SIZES))
    cell = np.rint(offset).astype(np.int64)
    near = (np.abs(cell) < _REACH).all(axis=-1)
    cell = cell % (2 * _REACH)
    pair = [codes[:, i, None] for codes in (shape, size) for i in range(2)]
    found = table[(*pair, cell[..., 1], cell[..., 0])]
    return np.where(near, found, 0.0)
