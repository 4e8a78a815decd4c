"""y^T = W x^T with W in blocks, in Gluon, for Hopper: weights are decoded while others multiply.

Tensor cores of compute capability 9.0 read both operands from shared memory, by themselves. So a
program keeps them busy with one step's product while its threads decode the next step's weights,
each a unit at a time as ``expand`` does, and 16-byte copies of x for later steps are under way:

    step i:  wait for the copies of x(i); barrier
             start W(i) x(i)^T, asynchronously
             start to copy x(i + STAGES - 2)
             decode W(i + 1) and write it to shared memory, in x's type
             wait for the product of step i - 1

W is the left operand, so that many rows and many tokens share a program: each weight is decoded
once for every ``TOKENS`` of y. A step is one plane of ``UNITS`` units of each row: 64 k, that lie
in x as ``expand`` would write them. What a step writes was read last by the product of step i - 2:
hence ``STAGES`` buffers of x, at least 4, and ``HELD`` of W, at least 3.

Tiles of y seldom fill the SMs in whole rounds: 5120 rows at 510 tokens are 80 tiles for 132. So
every program takes as many steps as any other, of one tile or the end of one and the beginning of
the next. Programs that share a tile leave their float32 sums in ``work``; the one that comes last
adds all of them, in the order of k: the same input gives the same bits.

What it must cost: an H100's SM multiplies 128 x 256 x 64 in 1,024 cycles, in which its four
schedulers issue 4,096 instructions of 32 lanes, 16 for each of the 8,192 weights. The whole loop
has 8 (Q2_K) to 12 (Q5_K) of them (``tests/bench/gguf_compiled.py --fused``).
"""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401 - the interpreter looks for it
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from .expand import rounded

UNITS = gl.constexpr(8)  # of a row, a step
K = gl.constexpr(64)  # their weights in a plane: 128 bytes, a whole row of shared memory's swizzle


@triton.jit
def owner(step, total, programs):
    """The program that makes a step of all: the largest whose first step is not beyond it."""
    return ((step + 1) * programs - 1) // total


@gluon.constexpr_function
def by_pair(rows, tokens):
    """Of y ``[tokens, rows]``: how sums lie in registers, two rows of a token side by side.

    A thread of tensor cores has rows r and r + 8 of 16 and tokens 2 q and 2 q + 1 of each 8. Rows
    of W are put so that these are y's rows 2 r and 2 r + 1: a warp then writes whole sectors.
    """
    more = [[8 << i, 0] for i in range((tokens // 8).bit_length() - 1)]
    warps = [[0, 16 << i] for i in range((rows // 16).bit_length() - 1)]
    lanes = [[2, 0], [4, 0], [0, 2], [0, 4], [0, 8]]
    return gl.DistributedLinearLayout([[0, 1], [1, 0], *more], lanes, warps, [], [tokens, rows])


@gluon.jit(do_not_specialize=["tokens", "blocks", "steps"])
def fused_kernel(
    x,
    words,
    bias,
    out,
    work,
    arrivals,
    tokens,
    rows,
    blocks,
    steps,
    x_stride,
    LOAD: gl.constexpr,
    PLANE: gl.constexpr,
    WEIGHTS: gl.constexpr,
    WORDS: gl.constexpr,
    PLANES: gl.constexpr,
    RUN: gl.constexpr,
    LANES: gl.constexpr,
    BIAS: gl.constexpr,
    ROWS: gl.constexpr,
    TOKENS: gl.constexpr,
    STAGES: gl.constexpr,
    HELD: gl.constexpr,
):
    """A program makes its share of the steps of all tiles ``[ROWS, TOKENS]`` of y^T.

    ``steps`` of all planes, 64 PLANES k each, are a row of W, of ``blocks``. ``work`` has two tiles
    of float32 a program, ``arrivals`` a zero a tile, and is left so.
    """
    WARPS: gl.constexpr = gl.num_warps()
    DTYPE: gl.constexpr = x.dtype.element_ty
    AHEAD: gl.constexpr = STAGES - 2
    by_unit: gl.constexpr = gl.BlockedLayout([1, 8], [32, 1], [WARPS, 1], [1, 0])
    by_token: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [WARPS, 1], [1, 0])
    sums: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [WARPS, 1], [16, TOKENS, 16])
    swizzled: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    ws = gl.allocate_shared_memory(DTYPE, [HELD, ROWS, K], swizzled)
    xs = gl.allocate_shared_memory(DTYPE, [STAGES, TOKENS, K], swizzled)

    unit = gl.arange(0, ROWS * UNITS, layout=gl.SliceLayout(1, by_unit))
    in_tile, unit = unit // UNITS, unit % UNITS
    in_tile = in_tile // 16 * 16 + in_tile % 8 * 2 + in_tile // 8 % 2  # see by_pair
    j = gl.arange(0, 8, layout=gl.SliceLayout(0, by_unit))[None, :]
    k = gl.arange(0, K, layout=gl.SliceLayout(0, by_token))
    k = k // (RUN * 8) * (RUN * 8 * PLANES) + k % (RUN * 8)
    as_y: gl.constexpr = by_pair(ROWS, TOKENS)
    row = gl.arange(0, ROWS, layout=gl.SliceLayout(0, as_y))
    token = gl.arange(0, TOKENS, layout=gl.SliceLayout(1, as_y))
    flat: gl.constexpr = gl.BlockedLayout([4], [32], [WARPS], [0])
    within = gl.arange(0, ROWS * TOKENS, layout=flat)

    across = gl.cdiv(tokens, TOKENS)
    everything = across * gl.cdiv(rows, ROWS) * steps
    me, programs = gl.program_id(0), gl.num_programs(0)
    begin, end = me * everything // programs, (me + 1) * everything // programs
    for tile in range(begin // steps, (end + steps - 1) // steps):
        gl.thread_barrier()  # buffers are free: all have waited for the tile before
        start_of = tile * steps
        first = gl.maximum(begin, start_of) - start_of
        last = gl.minimum(end - start_of, steps)
        n0, m0 = tile // across * ROWS, tile % across * TOKENS
        block = gl.minimum(n0 + in_tile, rows - 1) * blocks
        m = m0 + gl.arange(0, TOKENS, layout=gl.SliceLayout(1, by_token))
        m = gl.minimum(m, tokens - 1).to(gl.int64)
        taken = x + (m * x_stride)[:, None] + k[None, :]

        for i in gl.static_range(AHEAD):
            step = gl.minimum(first + i // PLANES, last - 1)
            start = taken + (step * (K * PLANES) + i % PLANES * (RUN * 8))
            async_copy.async_copy_global_to_shared(xs.index(i), start)
            async_copy.commit_group()
        now = first * UNITS + unit
        held, lane = LOAD(words, block + now // LANES, now % LANES), now % LANES
        w = rounded(PLANE(held, lane, j, 0), DTYPE)
        ws.index(0).store(w.reshape([ROWS, K]))
        total = gl.zeros([ROWS, TOKENS], gl.float32, layout=sums)
        in_w, in_x = 0, 0
        for step in range(first, last):
            now = gl.minimum(step + 1, last - 1) * UNITS + unit
            for p in gl.static_range(PLANES):
                fence_async_shared()  # what this thread stored is for the tensor cores
                async_copy.wait_group(AHEAD - 1)
                gl.thread_barrier()
                w_now, x_now = ws.index(in_w), xs.index(in_x).permute([1, 0])
                total = warpgroup_mma(w_now, x_now, total, is_async=True)
                if p == 0:
                    later, next_lane = LOAD(words, block + now // LANES, now % LANES), now % LANES
                to = in_x + AHEAD
                to = gl.where(to >= STAGES, to - STAGES, to)
                ahead = gl.minimum(step + (p + AHEAD) // PLANES, last - 1)
                start = taken + (ahead * (K * PLANES) + (p + AHEAD) % PLANES * (RUN * 8))
                async_copy.async_copy_global_to_shared(xs.index(to), start)
                async_copy.commit_group()
                in_w = gl.where(in_w == HELD - 1, 0, in_w + 1)
                in_x = gl.where(in_x == STAGES - 1, 0, in_x + 1)
                if p < PLANES - 1:
                    w = rounded(PLANE(held, lane, j, p + 1), DTYPE)
                else:
                    w = rounded(PLANE(later, next_lane, j, 0), DTYPE)
                ws.index(in_w).store(w.reshape([ROWS, K]))
                total = warpgroup_mma_wait(1, deps=(total,))
            held, lane = later, next_lane
        total = warpgroup_mma_wait(0, deps=(total,))
        async_copy.wait_group(0)

        of = owner(start_of, everything, programs)
        others = owner(start_of + steps - 1, everything, programs) - of
        complete = others == 0
        if others > 0:
            # Four sums of a thread side by side, then those of its neighbour: no data moves.
            left = total.reshape([ROWS // 16, 2, 8, TOKENS // 8, 4, 2]).permute([3, 0, 2, 4, 1, 5])
            flattened = gl.convert_layout(left.reshape([ROWS * TOKENS]), flat)
            mine = work + (me * 2 + (first > 0).to(gl.int32)).to(gl.int64) * (ROWS * TOKENS)
            gl.store(mine + within, flattened)
            gl.thread_barrier()  # the atomic's release is for what all threads stored
            complete = gl.atomic_add(arrivals + tile, 1, sem="acq_rel") == others
            if complete:
                whole = gl.zeros([ROWS * TOKENS], gl.float32, layout=flat)
                for program in range(of, of + others + 1):
                    late = (program * everything // programs > start_of).to(gl.int32)
                    theirs = work + (program * 2 + late).to(gl.int64) * (ROWS * TOKENS)
                    whole += gl.load(theirs + within, cache_modifier=".cg")
                back = whole.reshape([TOKENS // 8, ROWS // 16, 8, 4, 2, 2])
                back = back.permute([1, 4, 2, 0, 3, 5])
                total = gl.convert_layout(back.reshape([ROWS, TOKENS]), sums)
                gl.store(arrivals + tile, 0)
        if complete:
            turned = total.reshape([ROWS // 16, 2, 8, TOKENS]).permute([3, 0, 2, 1])
            y = gl.convert_layout(turned.reshape([TOKENS, ROWS]), as_y)
            n, t = n0 + row, m0 + token
            if BIAS:
                y += gl.load(bias + gl.minimum(n, rows - 1)).to(gl.float32)[None, :]
            place = out + t.to(gl.int64)[:, None] * rows + n[None, :]
            inside = (t < tokens)[:, None] & (n < rows)[None, :]
            gl.store(place, rounded(y, out.dtype.element_ty), mask=inside)
