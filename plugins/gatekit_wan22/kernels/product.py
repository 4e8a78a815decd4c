"""y = x W^T + b with W in blocks: decoded in registers, multiplied, never written.

Meant for few tokens, where the product takes no longer than W's traffic: from blocks Q2_K reads
0.33 bytes a weight, where decoding first writes 2 and reads 2 more. On an H100 that pays for
one token alone (docs/performance.md): with more, each tile of W is decoded once for every tile of
tokens, and cuBLAS multiplies faster.

The order of a sum is free, so k runs plane by plane: the weights of one plane of some blocks and
the same k of x are a product of their own. W is rounded to x's type as ``expand`` rounds it,
products are summed in float32, the bias is added before the one rounding of y. Where rows and
columns give too few programs, k is cut in parts whose float32 sums are added in a fixed order:
no atomics, so the same input gives the same bits.
"""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

from .expand import as_words, rounded
from .kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

MOST_STEP = 64  # weights of a plane that a step multiplies, for blocks of 32 weights


@triton.jit
def product_kernel(
    x,
    words,
    bias,
    out,
    tokens,
    rows,
    blocks,
    x_stride,
    LOAD: tl.constexpr,
    PLANE: tl.constexpr,
    WEIGHTS: tl.constexpr,
    WORDS: tl.constexpr,
    PLANES: tl.constexpr,
    RUN: tl.constexpr,
    LANES: tl.constexpr,
    BIAS: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    STEP: tl.constexpr,
    STEPS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """A program makes ``[M, N]`` of y, or of one part's sums: ``STEP`` blocks of k at a time.

    ``blocks``, of a row of W, are ``PARTS * STEPS * STEP``.
    """
    UNITS: tl.constexpr = STEP * LANES  # of a row, a step
    PLANE_RUN: tl.constexpr = RUN * 8  # neighbouring weights of a plane
    m, n = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N)
    token = tl.minimum(m, tokens - 1).to(tl.int64)
    unit = tl.arange(0, N * UNITS)
    row = tl.minimum(tl.program_id(1) * N + unit // UNITS, rows - 1).to(tl.int64)
    within = unit % UNITS
    block, lane = within // LANES, within % LANES
    at = words + (row * blocks + block) * WORDS
    k = tl.arange(0, UNITS * 8)
    k = k // PLANE_RUN * (PLANE_RUN * PLANES) + k % PLANE_RUN
    taken = x + token[:, None] * x_stride + k[None, :]
    first = tl.program_id(2) * STEPS
    at, taken = at + first * (STEP * WORDS), taken + first * (STEP * WEIGHTS)
    j = tl.arange(0, 8)[None, :]
    total = tl.zeros((M, N), tl.float32)
    for step in range(STEPS):
        held = LOAD(at + step * (STEP * WORDS), tl.zeros_like(lane), lane)
        for p in tl.static_range(PLANES):
            w = rounded(PLANE(held, lane, j, p), x.dtype.element_ty).reshape(N, UNITS * 8)
            part = tl.load(taken + step * (STEP * WEIGHTS) + p * PLANE_RUN)
            total = tl.dot(part, tl.trans(w), total)
    inside = (m[:, None] < tokens) & (n[None, :] < rows)
    if PARTS == 1:
        if BIAS:
            total += tl.load(bias + tl.minimum(n, rows - 1)).to(tl.float32)[None, :]
        place = out + m[:, None].to(tl.int64) * rows + n[None, :]
        tl.store(place, rounded(total, out.dtype.element_ty), mask=inside)
    else:
        place = out + (tl.program_id(2).to(tl.int64) * tokens + m[:, None]) * rows + n[None, :]
        tl.store(place, total, mask=inside)


def step_of(kind: Kind, blocks: int) -> int:
    """Blocks of a row that one step takes: a divisor of all, about ``MOST_STEP`` k a plane."""
    step = 1
    most = max(1, MOST_STEP * kind.planes // kind.weights)
    while step * 2 <= most and blocks % (step * 2) == 0:
        step *= 2
    return step


def tile_of(tokens: int, rows: int, steps: int) -> dict[str, int]:
    """Tile, parts and warps for a size.

    One stage: with more, Triton copies each word of the blocks to shared memory by itself, and
    the copies' addresses fill the registers (Q5_K then spills 500 to 2,000 bytes a thread).
    """
    m = 16 if tokens <= 16 else 64 if tokens <= 64 else 128
    n = 64 if m == 128 else 32
    programs = triton.cdiv(tokens, m) * triton.cdiv(rows, n)
    wanted = min(8, triton.cdiv(512, programs))
    parts = max(d for d in range(1, wanted + 1) if steps % d == 0)
    return {"m": m, "n": n, "parts": parts, "warps": 8 if m == 128 else 4, "stages": 1}


def product(
    x: Tensor,
    blocks: Tensor,
    kind: Kind,
    rows: int,
    bias: Tensor | None = None,
    tile: dict[str, int] | None = None,
) -> Tensor:
    """X ``[tokens, in]`` in bf16 or fp16, times the blocks of W ``[rows, in]``, plus the bias."""
    import torch

    tokens, columns = x.shape
    out = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if not tokens:
        return out
    x = x if x.stride(1) == 1 else x.contiguous()
    in_row = columns // kind.weights
    step = step_of(kind, in_row)
    tile = tile or tile_of(tokens, rows, in_row // step)
    parts = tile["parts"]
    if in_row % (step * parts):
        raise ValueError(f"{in_row // step} steps do not divide into {parts} parts")
    sums = out if parts == 1 else torch.empty(parts, tokens, rows, device=x.device)
    grid = (triton.cdiv(tokens, tile["m"]), triton.cdiv(rows, tile["n"]), parts)
    with torch.cuda.device_of(blocks):  # Triton launches on the current one
        product_kernel[grid](
            x, as_words(blocks, kind), x if bias is None else bias, sums, tokens, rows, in_row,
            x.stride(0), **kind.constants, BIAS=bias is not None, M=tile["m"], N=tile["n"],
            STEP=step, STEPS=in_row // step // parts, PARTS=parts,
            num_warps=tile["warps"], num_stages=tile["stages"],
        )  # fmt: skip
    if parts > 1:
        total = sums.sum(0) if bias is None else sums.sum(0).add_(bias)
        out.copy_(total)
    return out
