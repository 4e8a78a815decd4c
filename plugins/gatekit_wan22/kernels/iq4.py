"""IQ4_NL and IQ4_XS in Triton: nibbles that stand for values of a table (``kinds.py``)."""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import triton
import triton.language as tl

from .bits import as_half, byte_at, eight_bytes


@triton.jit
def _codebook(q):
    """IQ4's sixteen values (-127, -104, ... 113) + 128, from four words of bytes.

    Selected, not looked up: a load a weight would cost as much as all else together.
    """
    low = tl.where(q < 4, 0x3F2D1801, 0x766A5D4F)
    high = tl.where(q < 12, 0xA6998D81 - (1 << 32), 0xF1D9C5B5 - (1 << 32))
    return byte_at(tl.where(q < 8, low, high), q & 3)


@triton.jit
def plane_iq4(unit, lane, j, p: tl.constexpr):
    """W = d value(q)."""
    q0, q1, d = unit
    q = eight_bytes(j, (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F)
    return d[:, None] * (_codebook(q) - 128).to(tl.float32)


@triton.jit
def load_iq4_xs(words, block, lane):
    """136 bytes: d, 2 of high scale bits, 4 of low ones, 128 of nibbles."""
    at = words + block * 34
    q, d, part = at + 2 + lane * 2, tl.load(at), lane >> 1
    s = (byte_at(tl.load(at + 1), part >> 1) >> (4 * (part & 1))) & 15
    s |= ((d >> (16 + 2 * part)) & 3) << 4
    return tl.load(q), tl.load(q + 1), as_half(d) * (s - 32).to(tl.float32)
