"""Queries, keys and values of all heads on their way to attention: normed, rotated, rounded.

A program takes a few tokens, whose rotation it keeps, and goes through the heads. Between the two
times that it needs a token (for its norm, then for what becomes of it) the token stays in a cache:
so queries cost one reading and one writing, half as much in e4m3, where compiled code takes three
and five. What the kernels compute is in ``heads.reference``.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from .quantise_rows import greater

if TYPE_CHECKING:
    from torch import Tensor

ROWS, WARPS = 8, 2  # tokens a program, warps a program
SUM_ROWS, SUM_WARPS = 16, 1  # where sums over tokens are taken, one set a program
BLOCK, BLOCK_WARPS = 8192, 4  # numbers a program, where the largest is looked for


@triton.jit
def _inverse_length(x, inside, eps, HEADS: tl.constexpr, ROWS: tl.constexpr, DIM: tl.constexpr):
    """1 / rms of each token over all heads ``[ROWS]``; x points at ``[ROWS, DIM]`` of head 0."""
    total = tl.zeros([ROWS, DIM], tl.float32)
    for head in range(HEADS):
        w = tl.load(x + head * DIM, mask=inside, other=0.0).to(tl.float32)
        total += w * w
    return tl.rsqrt(tl.sum(total, 1) / (HEADS * DIM) + eps)


@triton.jit
def _rotation(cos, sin, row, tokens, ROWS: tl.constexpr, DIM: tl.constexpr):
    """Cosines and sines ``[ROWS, DIM / 2]``; as diffusers has them, each is there twice."""
    at = row[:, None] * DIM + 2 * tl.arange(0, DIM // 2)[None, :]
    inside = (row < tokens)[:, None]
    return tl.load(cos + at, mask=inside, other=0.0), tl.load(sin + at + 1, mask=inside, other=0.0)


@triton.jit
def _rotated(w, c, s, ROWS: tl.constexpr, DIM: tl.constexpr):
    """Pairs (a, b) of neighbours become (a c - b s, a s + b c)."""
    a, b = tl.split(tl.reshape(w, [ROWS, DIM // 2, 2]))
    return tl.reshape(tl.join(a * c - b * s, a * s + b * c), [ROWS, DIM])


@triton.jit
def rotate_kernel(
    x, weight, cos, sin, out, tokens, stride, eps,
    HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Normed and rotated, in x's type, rounded between as two layers would."""
    batch = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, DIM)
    inside = (row < tokens)[:, None] & (j < DIM)[None, :]
    number = batch * tokens + row
    x += number[:, None] * stride + j[None, :]
    out += number[:, None] * (HEADS * DIM) + j[None, :]
    inverse = _inverse_length(x, inside, eps, HEADS, ROWS, DIM)[:, None]
    c, s = _rotation(cos, sin, row, tokens, ROWS, DIM)
    for head in range(HEADS):
        w = tl.load(x + head * DIM, mask=inside, other=0.0).to(tl.float32)
        w = w * inverse * tl.load(weight + head * DIM + j)[None, :].to(tl.float32)
        w = _rotated(w.to(out.dtype.element_ty).to(tl.float32), c, s, ROWS, DIM)
        tl.store(out + head * DIM, w.to(out.dtype.element_ty), mask=inside)


@triton.jit
def sum_kernel(
    x, weight, cos, sin, sums, tokens, stride, eps,
    NORM: tl.constexpr, HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Sums of each channel over a program's tokens: in one warp, which waits for no other."""
    batch = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, DIM)
    inside = (row < tokens)[:, None] & (j < DIM)[None, :]
    x += (batch * tokens + row)[:, None] * stride + j[None, :]
    at = (batch * tl.num_programs(0) + tl.program_id(0)) * (HEADS * DIM) + j
    if NORM:
        inverse = _inverse_length(x, inside, eps, HEADS, ROWS, DIM)[:, None]
        c, s = _rotation(cos, sin, row, tokens, ROWS, DIM)
    for head in range(HEADS):
        w = tl.load(x + head * DIM, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            w = w * inverse * tl.load(weight + head * DIM + j)[None, :].to(tl.float32)
            w = _rotated(w, c, s, ROWS, DIM)
        tl.store(sums + at + head * DIM, tl.sum(w, 0))


@triton.jit
def round_kernel(
    x, weight, cos, sin, means, scale, out, tokens, rows, stride, eps,
    NORM: tl.constexpr, CENTRED: tl.constexpr,
    HEADS: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """(w - mean) / scale in e4m3; rows that x does not have are zeros."""
    batch = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, DIM)
    there = (row < tokens)[:, None]
    inside = there & (j < DIM)[None, :]
    x += (batch * tokens + row)[:, None] * stride + j[None, :]
    out += (batch * rows + row)[:, None] * (HEADS * DIM) + j[None, :]
    factor = tl.div_rn(1.0, tl.load(scale))
    if NORM:
        inverse = _inverse_length(x, inside, eps, HEADS, ROWS, DIM)[:, None]
        c, s = _rotation(cos, sin, row, tokens, ROWS, DIM)
    for head in range(HEADS):
        w = tl.load(x + head * DIM, mask=inside, other=0.0).to(tl.float32)
        if NORM:
            w = w * inverse * tl.load(weight + head * DIM + j)[None, :].to(tl.float32)
            w = _rotated(w, c, s, ROWS, DIM)
        if CENTRED:
            w -= tl.load(means + batch * (HEADS * DIM) + head * DIM + j)[None, :]
        w = tl.where(there, w * factor, 0.0).to(out.dtype.element_ty)
        tl.store(out + head * DIM, w, mask=(row < rows)[:, None] & (j < DIM)[None, :])


@triton.jit
def largest_kernel(x, most, count, BLOCK: tl.constexpr):
    """The largest magnitude of a program's numbers; NaN where one is."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    w = tl.load(x + i, mask=i < count, other=0.0).to(tl.float32)
    tl.store(most + tl.program_id(0), tl.reduce(tl.abs(w), 0, greater))


def rotate(x: Tensor, heads: int, norm: Any, rows: int = ROWS, warps: int = WARPS) -> Tensor:
    """``heads.rotated`` of x without holes."""
    import torch

    weight, eps, cos, sin = norm
    batch, tokens, dim = x.shape
    out = torch.empty(batch, tokens, heads, dim // heads, dtype=x.dtype, device=x.device)
    with torch.cuda.device_of(x):  # Triton launches on the current one
        rotate_kernel[(triton.cdiv(tokens, rows), batch)](
            x, weight, cos, sin, out, tokens, x.stride(1), eps,
            HEADS=heads, DIM=dim // heads, ROWS=rows, num_warps=warps,
        )  # fmt: skip
    return out


def sums(
    x: Tensor, heads: int, norm: Any = None, rows: int = SUM_ROWS, warps: int = SUM_WARPS
) -> Tensor:
    """Of each channel, over groups of tokens: ``[B, groups, C]``, to be summed.

    Args:
        x: ``[B, S, C]``, without holes.
        heads: Of C.
        norm: A ``heads.Norm``, or None where x is taken as it is.
        rows: Tokens a program.
        warps: Of a program.
    """
    import torch

    batch, tokens, dim = x.shape
    groups = triton.cdiv(tokens, rows)
    out = torch.empty(batch, groups, dim, dtype=torch.float32, device=x.device)
    weight, eps, cos, sin = norm or (x, 0.0, x, x)
    with torch.cuda.device_of(x):
        sum_kernel[(groups, batch)](
            x, weight, cos, sin, out, tokens, x.stride(1), eps,
            NORM=norm is not None, HEADS=heads, DIM=dim // heads, ROWS=rows, num_warps=warps,
        )  # fmt: skip
    return out


def rounded(
    x: Tensor, heads: int, total: int, scale: Tensor, means: Tensor | None, norm: Any = None,
    rows: int = ROWS, warps: int = WARPS,
) -> Tensor:  # fmt: skip
    """X as ``sums`` takes it, less ``means`` ``[B, C]``, over ``scale``, in e4m3.

    Returns:
        ``[B, total, heads, D]``; beyond x's tokens zeros.
    """
    import torch

    batch, tokens, dim = x.shape
    shape = batch, total, heads, dim // heads
    out = torch.empty(shape, dtype=torch.float8_e4m3fn, device=x.device)
    weight, eps, cos, sin = norm or (x, 0.0, x, x)
    with torch.cuda.device_of(x):
        round_kernel[(triton.cdiv(total, rows), batch)](
            x, weight, cos, sin, scale if means is None else means, scale, out,
            tokens, total, x.stride(1), eps, NORM=norm is not None, CENTRED=means is not None,
            HEADS=heads, DIM=dim // heads, ROWS=rows, num_warps=warps,
        )  # fmt: skip
    return out


def largest(x: Tensor, block: int = BLOCK, warps: int = BLOCK_WARPS) -> Tensor:
    """Magnitudes whose largest is that of x, without holes; NaN among them where x has one."""
    import torch

    programs = triton.cdiv(x.numel(), block)
    most = torch.empty(programs, dtype=torch.float32, device=x.device)
    with torch.cuda.device_of(x):
        largest_kernel[(programs,)](x, most, x.numel(), BLOCK=block, num_warps=warps)
    return most
