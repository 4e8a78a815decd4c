"""A Wan VAE run through time piece by piece and over the frame tile by tile.

Time: every convolution is causal and keeps the last two frames it saw, so frames join without
a seam. Space: the middle of the model, whose attention sees the whole frame, and the blocks of
its coarsest resolution run on whole frames, which are small there; the finer blocks are
convolutions alone and run on tiles with borders as wide as they see (``vae_tiles``).
The layers are those of diffusers' ``AutoencoderKLWan``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from .sizes_parts import VAESizes
    from .vae_tiles import Grid


class _Pass:
    """One pass through time over some layers: the frames that each of them keeps."""

    def __init__(self, model: Any) -> None:
        names = [type(module).__name__ for module in model.modules()]
        self._kept: list[Any] = [None] * names.count("WanCausalConv3d")
        self._at = [0]

    def start(self) -> _Pass:
        """A new piece of time: back to the first layer."""
        self._at[0] = 0
        return self

    def layer(self, layer: Any, x: Tensor, **more: Any) -> Tensor:
        """A block that keeps frames by itself."""
        return layer(x, feat_cache=self._kept, feat_idx=self._at, **more)

    def convolution(self, layer: Any, x: Tensor) -> Tensor:
        """One causal convolution."""
        import torch

        at, self._at[0] = self._at[0], self._at[0] + 1
        before = self._kept[at]
        if x.shape[2] > 1 or before is None:
            self._kept[at] = x[:, :, -2:].clone()
        else:
            self._kept[at] = torch.cat([before[:, :, -1:], x], dim=2)
        return layer(x, before)

    def head(self, part: Any, x: Tensor) -> Tensor:
        """The last layers of encoder or decoder."""
        return self.convolution(part.conv_out, part.nonlinearity(part.norm_out(x)))


def decode(model: Any, sizes: VAESizes, z: Tensor, tiles: Grid) -> Tensor:
    """Raw latent ``[B, z, T, h, w]`` -> video ``[B, 3, F, H, W]``, float32, clamped to [-1, 1]."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    cell = sizes.spatial_stride
    frames = (z.shape[2] - 1) * sizes.temporal_stride + 1
    shape = (z.shape[0], 3, frames, z.shape[3] * cell, z.shape[4] * cell)
    video = torch.empty(shape, device=z.device)
    coarse = _coarse(model, z)
    for row in tiles.rows:
        for column in tiles.columns:
            rise = _Rise(model)
            inner = (_pixels(row.core, cell), _pixels(column.core, cell))
            target = video[..., _pixels(row.whole, cell), _pixels(column.whole, cell)]
            frame = 0
            for k in range(z.shape[2]):
                pieces = [c[:, :, k : k + 1, row.seen, column.seen] for c in coarse]
                for x in rise(pieces, first=k == 0):
                    pixels = unpatchify(x, sizes.patch)[..., *inner]
                    target[:, :, frame : frame + 1].copy_(pixels).clamp_(-1.0, 1.0)
                    frame += 1
    return video


class _Rise:
    """The finer blocks over one tile: a coarse frame in, its video frames out, one by one.

    Each block runs on single frames, although an upsampling before it made two: that bounds
    what is in work at the finest resolution to one frame.
    """

    def __init__(self, model: Any) -> None:
        self._decoder = model.decoder
        self._passes = [_Pass(model) for _ in model.decoder.up_blocks]
        self._head = _Pass(model)

    def __call__(self, coarse: list[Tensor], *, first: bool) -> Iterator[Tensor]:
        """Frames ``[B, C, 1, h, w]``, still patched; one for the first latent frame, else four."""
        x, *shortcut = coarse
        block = self._decoder.up_blocks[0]
        upsampler = getattr(block, "upsampler", None)
        if getattr(block, "upsamplers", None) is not None:
            upsampler = block.upsamplers[0]
        if upsampler is not None:
            x = self._passes[0].start().layer(upsampler, x)
        if shortcut:
            x = x + block.avg_shortcut(shortcut[0], first_chunk=first)
        yield from self._finer(1, x, first)

    def _finer(self, level: int, x: Tensor, first: bool) -> Iterator[Tensor]:
        for i, frame in enumerate(x.split(1, dim=2)):
            if level == len(self._passes):
                yield self._head.start().head(self._decoder, frame)
                continue
            begins = first and i == 0
            block, state = self._decoder.up_blocks[level], self._passes[level].start()
            yield from self._finer(level + 1, state.layer(block, frame, first_chunk=begins), begins)


def _pixels(cells: slice, cell: int) -> slice:
    return slice(cells.start * cell, cells.stop * cell)


def _coarse(model: Any, z: Tensor) -> list[Tensor]:
    """What enters the first upsampling, and, where a shortcut goes around it, the block's input."""
    import torch

    decoder, state = model.decoder, _Pass(model)
    block = decoder.up_blocks[0]
    kept: list[list[Tensor]] = [[], []]
    for k in range(z.shape[2]):
        state.start()
        x = state.convolution(decoder.conv_in, model.post_quant_conv(z[:, :, k : k + 1]))
        x = state.layer(decoder.mid_block, x)
        if getattr(block, "avg_shortcut", None) is not None:
            kept[1].append(x)
        for resnet in block.resnets:
            x = state.layer(resnet, x)
        kept[0].append(x)
    return [torch.cat(pieces, dim=2) for pieces in kept if pieces]


def encode(model: Any, sizes: VAESizes, video: Tensor, tiles: Grid) -> Tensor:
    """Video ``[B, 3, F, H, W]`` in [-1, 1] -> posterior mean ``[B, z, T, h, w]``."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

    encoder, cell, step = model.encoder, sizes.spatial_stride, sizes.temporal_stride
    blocks = list(encoder.down_blocks)
    split = _coarsest(blocks)
    starts = [0, *range(1, video.shape[2], step)]
    coarse: Tensor | None = None
    for row in tiles.rows:
        for column in tiles.columns:
            state = _Pass(model)
            seen = video[..., _pixels(row.seen, cell), _pixels(column.seen, cell)]
            for k, start in enumerate(starts):
                piece = seen[:, :, start : start + (step if k else 1)].to(model.dtype)
                x = state.start().convolution(encoder.conv_in, patchify(piece, sizes.patch))
                for block in blocks[:split]:
                    x = state.layer(block, x)
                if coarse is None:
                    frame = (video.shape[3] // cell, video.shape[4] // cell)
                    coarse = x.new_empty(*x.shape[:2], len(starts), *frame)
                x = x[..., row.core, column.core]
                coarse[:, :, k : k + 1, row.whole, column.whole] = x
    assert coarse is not None
    state, means = _Pass(model), []
    for k in range(len(starts)):
        state.start()
        x = coarse[:, :, k : k + 1]
        for block in blocks[split:]:
            x = state.layer(block, x)
        x = state.head(encoder, state.layer(encoder.mid_block, x))
        means.append(model.quant_conv(x).chunk(2, dim=1)[0])
    return torch.cat(means, dim=2)


def _coarsest(blocks: list[Any]) -> int:
    """Index of the first block at the coarsest resolution: the one after the last downsampling."""
    for i in reversed(range(len(blocks))):
        block = blocks[i]
        if type(block).__name__ == "WanResample" or getattr(block, "downsampler", None) is not None:
            return i + 1
    return 0
