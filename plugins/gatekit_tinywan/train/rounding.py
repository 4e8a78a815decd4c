"""Steps with weights rounded as a Q2_K file rounds them, so that such a file still works.

Two bits a weight change a matrix by about a third of its norm. A model of billions of parameters
bears it; one of six million, trained without regard to it, shows nothing at all. So a share of
the steps sees rounded weights and passes its gradients on to the exact ones (the straight-through
estimator: Bengio, Leonard and Courville, arXiv:1308.3432). The rounding is that of the format:
blocks of 16 in super-blocks of 256, w = d s q - e m with q in 0..3 and s, m in 0..15.
"""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def round_blocks(weight: Tensor, top: int = 3, scale_top: int = 15) -> Tensor:
    """``weight`` ``[n, 256]`` on the grid of its blocks of 16.

    Codes are 0..``top``; a block's scale is one of ``scale_top`` parts of its row's largest.
    """
    blocks = weight.reshape(-1, 16, 16)
    tiny = torch.finfo(weight.dtype).tiny
    low = blocks.amin(-1, keepdim=True).clamp(max=0)
    scale = ((blocks.amax(-1, keepdim=True) - low) / top).clamp(min=tiny)
    for _ in range(2):  # codes for the scale and minimum, then the best scale and minimum for them
        codes = ((blocks - low) / scale).round().clamp(0, top)
        mean = codes.mean(-1, keepdim=True)
        centred = codes - mean
        spread = centred.square().sum(-1, keepdim=True)
        best = (centred * blocks).sum(-1, keepdim=True) / spread.clamp(min=0.5)
        scale = torch.where(best > 0, best, scale)
        low = (blocks.mean(-1, keepdim=True) - scale * mean).clamp(max=0)
    scale, low = _in_parts(scale, scale_top), -_in_parts(-low, scale_top)
    codes = ((blocks - low) / scale.clamp(min=tiny)).round().clamp(0, top)
    return (scale * codes + low).reshape(weight.shape)


def _in_parts(value: Tensor, parts: int) -> Tensor:
    """``value`` ``[n, 16, 1]`` as whole parts of each row's largest."""
    unit = value.amax(1, keepdim=True) / parts
    return unit * (value / unit.clamp(min=torch.finfo(value.dtype).tiny)).round()


class Rounding:
    """Rounds matrices for a random ``share`` of the steps, all of them or none, and undoes it.

    Nothing is read back from the device, so that a step with it can be captured.
    """

    def __init__(self, matrices: Sequence[nn.Parameter], share: float) -> None:
        self.data = [p.data for p in matrices]
        self.sizes = [p.numel() // 256 for p in matrices]
        self.share = share
        self.exact: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def apply(self) -> None:
        """Round, or not, as chance has it."""
        exact = torch.cat([p.reshape(-1, 256) for p in self.data])
        on = torch.rand((), device=exact.device) < self.share
        self.exact = exact.split(self.sizes)
        self._store(torch.where(on, round_blocks(exact), exact).split(self.sizes))

    @torch.no_grad()
    def undo(self) -> None:
        """Put the exact weights back."""
        self._store(self.exact)

    def _store(self, parts: Sequence[Tensor]) -> None:
        views = [part.view_as(p) for part, p in zip(parts, self.data, strict=True)]
        torch._foreach_copy_(self.data, views)
