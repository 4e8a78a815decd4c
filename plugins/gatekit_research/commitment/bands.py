"""Bands of a latent: coefficients of its 3-D cosine transform, by frequency."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import gatekit

if TYPE_CHECKING:
    from torch import Tensor

NAMES: tuple[str, ...] = ("coarse", "middle", "fine")
EDGES = (0.25, 0.5)


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II as a matrix ``[n, n]``, float64.

    C[k, i] = sqrt(2/n) cos(pi (2i + 1) k/(2n)), its first row divided by sqrt 2.
    Source: Ahmed, Natarajan and Rao, "Discrete cosine transform", IEEE Trans. Comp. C-23, 1974.
    """
    import torch

    i = torch.arange(n, dtype=torch.float64)
    matrix = math.sqrt(2.0 / n) * torch.cos(math.pi * (2.0 * i + 1.0) * i[:, None] / (2.0 * n))
    matrix[0] /= math.sqrt(2.0)
    return matrix


def dct3(x: Tensor) -> Tensor:
    """3-D DCT over the last three axes, orthonormal: ``[..., T, H, W]``, float64."""
    import torch

    t, h, w = (dct_matrix(n).to(x.device) for n in x.shape[-3:])
    return torch.einsum("...thw,at,bh,cw->...abc", x.double(), t, h, w)


def bands(shape: tuple[int, int, int], edges: tuple[float, float] = EDGES) -> Mapping[str, Tensor]:
    """Which coefficients ``[T, H, W]`` are coarse, middle and fine.

    By r = sqrt((k_t/T)^2 + (k_h/H)^2 + (k_w/W)^2): 1 is the highest frequency of one axis.
    Coarse is r < edges[0], fine is r >= edges[1].

    Raises:
        InputError: A band has no coefficient.
    """
    import torch

    axes = [torch.arange(n, dtype=torch.float64) / n for n in shape]
    t, h, w = torch.meshgrid(*axes, indexing="ij")
    r = (t.square() + h.square() + w.square()).sqrt()
    low, high = edges
    masks = dict(zip(NAMES, (r < low, (r >= low) & (r < high), r >= high), strict=True))
    for name, mask in masks.items():
        if not bool(mask.any()):
            raise gatekit.InputError(
                f"no frequency of a latent of {'x'.join(map(str, shape))} is {name}",
                where="--edges",
                value=list(edges),
                remedy="choose other edges, or a larger video",
            )
    return masks
