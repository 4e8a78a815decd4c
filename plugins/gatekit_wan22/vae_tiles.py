"""How a clip is cut into tiles: from its size, its VAE's and the precision alone.

A tile is its core and a border as wide as the tiled layers can see, so that the core comes out
as from the whole frame and no seam is left to blend. All numbers are in latent pixels: cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from gatekit import InputError

if TYPE_CHECKING:
    from .sizes_parts import VAESizes

Tile = Literal["auto", "never"] | int

# ``auto``: what a tile may take at its peak, by ``tile_bytes``.
TILE_BYTES = 3 << 30
# Frames in work at the finest resolution, beside those that the layers keep: inputs with their
# padding, outputs, the convolution's own copies. Measured on a CPU (tests/parity/vae_tiles.py).
DECODING_FRAMES, ENCODING_FRAMES = 16, 50


@dataclass(frozen=True)
class Span:
    """One axis of a tile: the core [start, stop), with its border [low, high)."""

    start: int
    stop: int
    low: int
    high: int

    @property
    def core(self) -> slice:
        """Where the core lies within the tile."""
        return slice(self.start - self.low, self.stop - self.low)

    @property
    def whole(self) -> slice:
        """Where the core lies within the frame."""
        return slice(self.start, self.stop)

    @property
    def seen(self) -> slice:
        """Core and border within the frame."""
        return slice(self.low, self.high)


@dataclass(frozen=True)
class Grid:
    """The tiles of a frame: every row with every column."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def decoding_border(sizes: VAESizes) -> int:
    """How far the layers above the coarsest resolution see, in cells, when decoding."""
    reach = 1  # the last convolution
    for _ in sizes.dim_mult[1:]:
        reach += 2 * (sizes.res_blocks + 1)  # two convolutions a residual block
        reach = -(-(reach + 1) // 2)  # one after the upsampling, then to the coarser pixels
    return reach


def encoding_border(sizes: VAESizes) -> int:
    """How far the layers down to the coarsest resolution see, in cells, when encoding."""
    reach = 0
    for _ in sizes.dim_mult[1:]:
        reach = 2 * reach + 1 + 2 * sizes.res_blocks
    return -(-(reach + 1) // 2 ** (len(sizes.dim_mult) - 1))


def tile_bytes(sizes: VAESizes, item: int, *, decoding: bool) -> int:
    """What a tile takes at its peak, a cell: two frames for each convolution, and those in work."""
    base = sizes.decoder_base_dim if decoding else sizes.base_dim
    width = [base * m for m in sizes.dim_mult]  # finest resolution first
    pixels = [4 ** (len(width) - 1 - i) for i in range(len(width))]
    convolutions = 2 * (sizes.res_blocks + decoding)
    kept = sum(w * p * convolutions for w, p in zip(width, pixels, strict=True))
    # A 2.2 upsampler keeps the width of the resolution that it comes from.
    widest = width[min(1, len(width) - 1)] if decoding and sizes.residual else width[0]
    work = DECODING_FRAMES if decoding else ENCODING_FRAMES
    return (2 * kept + work * widest * pixels[0]) * item


def spans(length: int, count: int, border: int) -> tuple[Span, ...]:
    """``length`` cut into ``count`` cores that differ by one at most."""
    cuts = [length * i // count for i in range(count + 1)]
    return tuple(Span(a, b, max(0, a - border), min(length, b + border)) for a, b in pairwise(cuts))


def grid(
    height: int, width: int, sizes: VAESizes, item: int, tile: Tile, *, decoding: bool
) -> Grid:
    """The tiles of a frame of ``height`` x ``width`` cells.

    Args:
        height: In cells.
        width: In cells.
        sizes: The VAE's.
        item: Bytes of a number it computes in.
        tile: ``auto``: as few pixels computed twice as ``TILE_BYTES`` allows; ``never``: one;
            a number: pixels that a tile may measure each way, border included.
        decoding: Or encoding.

    Raises:
        InputError: A tile too small for its borders.
    """
    border = (decoding_border if decoding else encoding_border)(sizes)
    if tile == "never":
        return Grid(spans(height, 1, border), spans(width, 1, border))
    if tile == "auto":
        most = TILE_BYTES // tile_bytes(sizes, item, decoding=decoding)
        rows, columns = _fewest(_cuts(height, border), _cuts(width, border), most)
        return Grid(rows, columns)
    if tile < least_tile(sizes):
        raise InputError(
            "a tile must hold its border on both sides",
            value=tile,
            remedy=f"at least {least_tile(sizes)} pixels for this VAE, or 'auto'",
        )
    most = tile // sizes.spatial_stride
    rows, columns = (
        next(cut for cut in _cuts(length, border) if _largest(cut) <= most)
        for length in (height, width)
    )
    return Grid(rows, columns)


def least_tile(sizes: VAESizes) -> int:
    """The smallest tile in pixels: one cell and its border on both sides."""
    border = max(decoding_border(sizes), encoding_border(sizes))
    return sizes.spatial_stride * (2 * border + 1)


Cut = tuple[Span, ...]


def _cuts(length: int, border: int) -> list[Cut]:
    return [spans(length, count, border) for count in range(1, length + 1)]


def _largest(cut: Cut) -> int:
    return max(span.high - span.low for span in cut)


def _fewest(rows: Sequence[Cut], columns: Sequence[Cut], most: int) -> tuple[Cut, Cut]:
    """The cuts that compute least, with tiles of at most ``most`` cells, or the smallest tiles."""

    def measures(cuts: Sequence[Cut]) -> list[tuple[int, int, Cut]]:
        return [(_largest(cut), sum(s.high - s.low for s in cut), cut) for cut in cuts]

    _, _, row, column = min(
        (
            (max(h * w, most), total_h * total_w, row, column)
            for h, total_h, row in measures(rows)
            for w, total_w, column in measures(columns)
        ),
        key=lambda found: found[:2],
    )
    return row, column
