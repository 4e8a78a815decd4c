"""Triton kernels of ``fused``: normalise, SiLU and pad in one pass, and its gradient."""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportArgumentType=false
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 64  # voxels a program


@triton.jit
def _forward(
    x_ptr, gamma_ptr, y_ptr, total, scale, frames, height, width,
    channels: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * rows + tl.arange(0, rows)).to(tl.int64)
    c = tl.arange(0, channels)
    w = row % (width + 2)
    rest = row // (width + 2)
    h = rest % (height + 2)
    rest = rest // (height + 2)
    t = rest % (frames + 2)
    b = rest // (frames + 2)
    inside = (w >= 1) & (w <= width) & (h >= 1) & (h <= height) & (t >= 2) & (row < total)
    source = ((b * frames + t - 2) * height + h - 1) * width + w - 1
    x = tl.load(x_ptr + source[:, None] * channels + c[None, :], mask=inside[:, None], other=0.0)
    x = x.to(tl.float32)
    length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), 1e-12)
    a = x / length[:, None] * (tl.load(gamma_ptr + c).to(tl.float32) * scale)[None, :]
    y = a * tl.sigmoid(a)  # 0 in the padding, where x is 0
    tl.store(y_ptr + row[:, None] * channels + c[None, :], y, mask=(row < total)[:, None])


@triton.jit
def _backward(
    x_ptr, gamma_ptr, dy_ptr, dx_ptr, dgamma_ptr, total, scale, frames, height, width,
    channels: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * rows + tl.arange(0, rows)).to(tl.int64)
    c = tl.arange(0, channels)
    inside = (row < total)[:, None]
    w = row % width
    rest = row // width
    h = rest % height
    rest = rest // height
    t = rest % frames
    b = rest // frames
    padded = ((b * (frames + 2) + t + 2) * (height + 2) + h + 1) * (width + 2) + w + 1
    x = tl.load(x_ptr + row[:, None] * channels + c[None, :], mask=inside, other=0.0).to(tl.float32)
    dy = tl.load(dy_ptr + padded[:, None] * channels + c[None, :], mask=inside, other=0.0)
    gamma = (tl.load(gamma_ptr + c).to(tl.float32) * scale)[None, :]
    length = tl.maximum(tl.sqrt(tl.sum(x * x, axis=1)), 1e-12)[:, None]
    n = x / length
    a = n * gamma
    s = tl.sigmoid(a)
    da = dy.to(tl.float32) * s * (1 + a * (1 - s))
    dn = da * gamma
    dx = (dn - n * tl.sum(dn * n, axis=1)[:, None]) / length
    tl.store(dx_ptr + row[:, None] * channels + c[None, :], dx, mask=inside)
    tl.store(dgamma_ptr + tl.program_id(0) * channels + c, tl.sum(da * n, axis=0) * scale)


class NormSiluPad(torch.autograd.Function):
    """``fused.activate`` for channels-last CUDA tensors; channels a power of two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gamma: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, C, T + 2, H + 2, W + 2]``."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        batch, channels, frames, height, width = x.shape
        y = x.new_empty(batch, frames + 2, height + 2, width + 2, channels)
        total = y.numel() // channels
        _forward[(triton.cdiv(total, ROWS),)](
            x, gamma, y, total, channels**0.5, frames, height, width, channels=channels, rows=ROWS
        )
        ctx.save_for_backward(x, gamma)
        return y.permute(0, 4, 1, 2, 3)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of ``x`` and ``gamma``."""
        x, gamma = ctx.saved_tensors
        _, channels, frames, height, width = x.shape
        grad = grad.contiguous(memory_format=torch.channels_last_3d)
        dx = torch.empty_like(x)
        total = x.numel() // channels
        programs = triton.cdiv(total, ROWS)
        dgamma = torch.empty(programs, channels, device=x.device)
        _backward[(programs,)](
            x, gamma, grad, dx, dgamma, total, channels**0.5, frames, height, width,
            channels=channels, rows=ROWS,
        )  # fmt: skip
        return dx, dgamma.sum(0).view(gamma.shape).to(gamma.dtype)
