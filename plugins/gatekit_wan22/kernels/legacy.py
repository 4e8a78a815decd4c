"""Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 in Triton: blocks of 32 weights with one scale (``kinds.py``)."""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import triton
import triton.language as tl

from .bits import as_half, byte_at, eight_bytes, one_word, scaled, signed, two_words


@triton.jit
def _after_scale(at, lane):
    """Two words of quants, behind the half d that a block begins with; and d."""
    return two_words(at, 1 + lane * 4), two_words(at, 3 + lane * 4), as_half(one_word(at, 0))


@triton.jit
def load_q8_0(words, block, lane):
    """34 bytes: d, 32 signed."""
    return _after_scale(words + block * 17, lane)


@triton.jit
def plane_q8_0(unit, lane, j, p: tl.constexpr):
    """W = d q."""
    q0, q1, d = unit
    return d[:, None] * signed(eight_bytes(j, q0, q1)).to(tl.float32)


@triton.jit
def load_q4_0(words, block, lane):
    """18 bytes: d, 16 of nibbles. IQ4_NL has the same."""
    return _after_scale(words + block * 9, lane)


@triton.jit
def plane_q4_0(unit, lane, j, p: tl.constexpr):
    """W = d (q - 8)."""
    q0, q1, d = unit
    return scaled(j, d, (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F, 8)


@triton.jit
def load_q4_1(words, block, lane):
    """20 bytes: d, m, 16 of nibbles."""
    at = words + block * 5
    d = tl.load(at)
    return tl.load(at + 1 + lane * 2), tl.load(at + 2 + lane * 2), as_half(d), as_half(d >> 16)


@triton.jit
def plane_q4_1(unit, lane, j, p: tl.constexpr):
    """W = d q + m."""
    q0, q1, d, m = unit
    q0, q1 = (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F
    return scaled(j, d, q0, q1, 0) + m[:, None]


@triton.jit
def _spread(bits):
    """Four bits -> bit 4 of the four bytes."""
    return ((bits * 0x204081) & 0x01010101) << 4


@triton.jit
def _with_fifth(q0, q1, high, lane, p: tl.constexpr):
    """Nibbles of plane ``p`` with their bits of 32, weight 0 in the lowest."""
    bits = byte_at(high, 2 * p + lane)
    return (
        ((q0 >> (4 * p)) & 0x0F0F0F0F) | _spread(bits & 15),
        ((q1 >> (4 * p)) & 0x0F0F0F0F) | _spread(bits >> 4),
    )


@triton.jit
def load_q5_0(words, block, lane):
    """22 bytes: d, 32 fifth bits, 16 of nibbles."""
    at = words + block * 11
    q = at + 3 + lane * 4
    return two_words(q, 0), two_words(q, 2), two_words(at, 1), as_half(one_word(at, 0))


@triton.jit
def plane_q5_0(unit, lane, j, p: tl.constexpr):
    """W = d (q - 16)."""
    q0, q1, high, d = unit
    q = _with_fifth(q0, q1, high, lane, p)
    return scaled(j, d, q[0], q[1], 16)


@triton.jit
def load_q5_1(words, block, lane):
    """24 bytes: d, m, 32 fifth bits, 16 of nibbles."""
    at = words + block * 6
    q, d = at + 2 + lane * 2, tl.load(at)
    return tl.load(q), tl.load(q + 1), tl.load(at + 1), as_half(d), as_half(d >> 16)


@triton.jit
def plane_q5_1(unit, lane, j, p: tl.constexpr):
    """W = d q + m."""
    q0, q1, high, d, m = unit
    q = _with_fifth(q0, q1, high, lane, p)
    return scaled(j, d, q[0], q[1], 0) + m[:, None]
