"""Blocks -> weights in memory: one kernel body, compiled for each type and result type.

What it must cost, for the 400 matrices of one A14B expert (14.05e9 weights) at the 2.97 TB/s that
a copy reaches on an H100: Q2_K (v in Q3_K) reads 4.7 GB, Q5_K 9.7 GB, both write 28.1 GB of bf16:
11.0 and 12.7 ms. In 11 ms 132 SMs x 4 schedulers issue 9.9e9 instructions of 32 lanes, 22 a
weight. ``tests/bench/gguf_compiled.py`` counts what the compiled kernels have.
"""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import triton
import triton.language as tl

from .kinds import Kind

if TYPE_CHECKING:
    from torch import Tensor

UNITS, WARPS = 256, 4  # units a program (at least 16), warps a program


@triton.jit
def rounded(w, dtype: tl.constexpr):
    """float32 to a result type, to nearest, ties to even, as torch's ``to``."""
    if dtype == tl.float32:
        return w
    else:
        return w.to(dtype, fp_downcast_rounding="rtne")


@triton.jit
def expand_kernel(
    words,
    out,
    units,
    LOAD: tl.constexpr,
    PLANE: tl.constexpr,
    WEIGHTS: tl.constexpr,
    WORDS: tl.constexpr,
    PLANES: tl.constexpr,
    RUN: tl.constexpr,
    LANES: tl.constexpr,
    UNITS: tl.constexpr,
):
    """A program decodes ``UNITS`` units: whole blocks, one unit a lane at a time."""
    first = tl.program_id(0).to(tl.int64) * UNITS
    words += first // LANES * WORDS
    out += first // LANES * WEIGHTS
    left = (units - first).to(tl.int32)
    index = tl.arange(0, UNITS)
    inside = index < left
    index = tl.minimum(index, left - 1)  # no load needs a mask
    block, lane = index.to(tl.uint32) // LANES, index.to(tl.uint32) % LANES
    block, lane = block.to(tl.int32), lane.to(tl.int32)
    unit = LOAD(words, block, lane)
    place = index // RUN * (RUN * 8 * PLANES) + index % RUN * 8
    j = tl.arange(0, 8)[None, :]
    places = place[:, None] + j
    for p in tl.static_range(PLANES):
        w = rounded(PLANE(unit, lane, j, p), out.dtype.element_ty)
        tl.store(out + places + p * RUN * 8, w, mask=inside[:, None])


def as_words(blocks: Tensor, kind: Kind) -> Tensor:
    """The blocks as the kernel reads them: copied only where they do not lie on whole words.

    Args:
        blocks: uint8, one-dimensional, whole blocks. A view into a file may begin anywhere.
        kind: Its type.
    """
    import torch

    blocks = blocks.contiguous()
    if blocks.data_ptr() % kind.word or blocks.storage_offset() % kind.word:
        blocks = blocks.clone()
    return blocks.view(torch.int16 if kind.word == 2 else torch.int32)


_launches: dict[tuple[Any, ...], Any] = {}  # compiled kernels by what they are compiled for


def expand(
    blocks: Tensor, kind: Kind, out: Tensor, units: int = UNITS, warps: int = WARPS
) -> Tensor:
    """Decode all of ``blocks`` into ``out``, one-dimensional, on the current stream.

    Triton works out at every call what a kernel is compiled for; a pass of few tokens would wait
    for that four hundred times. So what it found is kept, and launched at once the next time.
    """
    import torch

    total = blocks.numel() // kind.size * kind.lanes
    if not total:
        return out
    device = blocks.device
    grid, words = (triton.cdiv(total, units), 1, 1), as_words(blocks, kind)
    # Triton compiles for pointers that are multiples of 16, and for numbers that are.
    places = words.data_ptr() % 16, out.data_ptr() % 16
    key = (kind, out.dtype, device, total, places, units, warps)
    ready = _launches.get(key)
    here = device.type != "cuda" or device.index == torch.cuda.current_device()
    with nullcontext() if here else torch.cuda.device(device):  # Triton launches on the current
        if ready is not None:
            ready[grid](words, out, total, *kind.constants.values(), units)
            return out
        made = expand_kernel[grid](
            words, out, total, **kind.constants, UNITS=units, num_warps=warps
        )
    if made is not None and _RELAUNCHES:  # the interpreter makes none
        _launches[key] = made
    return out


# Of Triton: since when a compiled kernel is launched with all arguments, constants too.
_RELAUNCHES = tuple(int(n) for n in triton.__version__.split(".")[:2]) >= (3, 6)
