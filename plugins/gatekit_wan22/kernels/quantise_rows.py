"""Rows to e4m3 in one pass: each read once, its largest magnitude found, divided, rounded.

torch's operations read a row four times and write it in float32 between: for x ``[32760, 5120]`` in
bf16 that took 1.7 ms on an H100, more than the fp8 product saves, where reading and writing once
takes 0.17. Compiled blocks do without: there the same arithmetic is fused into what comes before.
"""

# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = tl.constexpr(448.0)  # of e4m3
TINY = tl.constexpr(1e-12)  # a scale of a row of zeros
MOST = 1 << 15  # columns that a program can hold


@triton.jit
def quantise_kernel(x, q, scales, columns, stride, BLOCK: tl.constexpr):
    """A program quantises one row; NaN in it makes its scale NaN, which maxima would pass over."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < columns
    w = tl.load(x + row * stride + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.div_rn(tl.maximum(tl.max(tl.abs(w)), TINY), LARGEST)
    scale = tl.where(tl.max((w != w).to(tl.int32)) > 0, float("nan"), scale)
    w = tl.minimum(tl.maximum(tl.div_rn(w, scale), -LARGEST), LARGEST)
    tl.store(q + row * columns + at, w.to(q.dtype.element_ty), mask=inside)
    tl.store(scales + row, scale)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` ``[rows, columns]``, rows without holes, in e4m3; and float32 scales ``[rows, 1]``."""
    import torch

    rows, columns = x.shape
    q = torch.empty(rows, columns, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(columns)
    warps = max(1, min(16, block // 512))
    if rows:
        with torch.cuda.device_of(x):  # Triton launches on the current one
            quantise_kernel[(rows,)](
                x, q, scales, columns, x.stride(0), BLOCK=block, num_warps=warps
            )
    return q, scales
