"""Q2_K to Q6_K in Triton: super-blocks of 256 weights with scales of their own (``kinds.py``)."""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import triton
import triton.language as tl

from .bits import as_half, byte_at, one_word, scaled, signed, two_words


@triton.jit
def load_q2_k(words, block, lane):
    """84 bytes: 16 of scales and minima, 64 of 2 bits, d, dmin."""
    at = words + block * 21
    half = lane >> 2
    q, s = at + 4 + half * 8 + (lane & 3) * 2, at + half * 2
    d = tl.load(at + 20)
    return tl.load(q), tl.load(q + 1), tl.load(s), tl.load(s + 1), as_half(d), as_half(d >> 16)


@triton.jit
def plane_q2_k(unit, lane, j, p: tl.constexpr):
    """W = (d scale) q - dmin min; a scale for 16 weights."""
    q0, q1, s0, s1, d, dmin = unit
    s = byte_at(s0 if p < 2 else s1, (p & 1) * 2 + ((lane & 3) >> 1))
    scale, low = d * (s & 15).to(tl.float32), dmin * (s >> 4).to(tl.float32)
    q0, q1 = (q0 >> (2 * p)) & 0x03030303, (q1 >> (2 * p)) & 0x03030303
    return scaled(j, scale, q0, q1, 0) - low[:, None]


@triton.jit
def load_q3_k(words, block, lane):
    """110 bytes: 32 of high bits, 64 of 2 bits, 12 of scales, d."""
    at = words + block * 55
    h, q, s = at + (lane & 3) * 4, at + 16 + (lane >> 2) * 16 + (lane & 3) * 4, at + 48
    high, low = (two_words(h, 0), two_words(h, 2)), (two_words(q, 0), two_words(q, 2))
    return low, high, two_words(s, 0), two_words(s, 2), two_words(s, 4), as_half(one_word(at, 54))


@triton.jit
def plane_q3_k(unit, lane, j, p: tl.constexpr):
    """W = (d (scale - 32)) (q - 4 where the high bit is clear); a scale for 16 weights."""
    low, high, s0, s1, s2, d = unit
    half, index = lane >> 2, (p & 1) * 2 + ((lane & 3) >> 1)
    s = (byte_at(s0 if p < 2 else s1, index) >> (4 * half)) & 15
    s |= ((byte_at(s2, index) >> (4 * half + 2 * (p >> 1))) & 3) << 4
    q0 = ((low[0] >> (2 * p)) & 0x03030303) | (((high[0] >> (4 * half + p)) & 0x01010101) << 2)
    q1 = ((low[1] >> (2 * p)) & 0x03030303) | (((high[1] >> (4 * half + p)) & 0x01010101) << 2)
    return scaled(j, d * (s - 32).to(tl.float32), q0, q1, 4)


@triton.jit
def _scale_and_min(first, second, third, s):
    """Scale and minimum ``s`` of the eight 6-bit pairs in 12 bytes."""
    index = s & 3
    f, m, t = byte_at(first, index), byte_at(second, index), byte_at(third, index)
    scale = tl.where(s < 4, f & 63, (t & 15) | ((f >> 2) & 0x30))
    low = tl.where(s < 4, m & 63, (t >> 4) | ((m >> 2) & 0x30))
    return scale.to(tl.float32), low.to(tl.float32)


@triton.jit
def load_q4_k(words, block, lane):
    """144 bytes: d, dmin, 12 of scales and minima, 128 of nibbles."""
    at = words + block * 36
    q, d = at + 4 + (lane >> 2) * 8 + (lane & 3) * 2, tl.load(at)
    s = (tl.load(at + 1), tl.load(at + 2), tl.load(at + 3))
    return tl.load(q), tl.load(q + 1), s, as_half(d), as_half(d >> 16)


@triton.jit
def plane_q4_k(unit, lane, j, p: tl.constexpr):
    """W = (d scale) q - dmin min; a pair for 32 weights."""
    q0, q1, s, d, dmin = unit
    scale, low = _scale_and_min(s[0], s[1], s[2], (lane >> 2) * 2 + p)
    q0, q1 = (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F
    return scaled(j, d * scale, q0, q1, 0) - (dmin * low)[:, None]


@triton.jit
def load_q5_k(words, block, lane):
    """176 bytes: as Q4_K, with 32 of fifth bits before the nibbles."""
    at = words + block * 44
    h, q, d = at + 4 + (lane & 3) * 2, at + 12 + (lane >> 2) * 8 + (lane & 3) * 2, tl.load(at)
    s = (tl.load(at + 1), tl.load(at + 2), tl.load(at + 3))
    high = (tl.load(h), tl.load(h + 1))
    return tl.load(q), tl.load(q + 1), high, s, as_half(d), as_half(d >> 16)


@triton.jit
def plane_q5_k(unit, lane, j, p: tl.constexpr):
    """As Q4_K, with the fifth bit."""
    q0, q1, high, s, d, dmin = unit
    pair = (lane >> 2) * 2 + p
    scale, low = _scale_and_min(s[0], s[1], s[2], pair)
    q0 = ((q0 >> (4 * p)) & 0x0F0F0F0F) | (((high[0] >> pair) & 0x01010101) << 4)
    q1 = ((q1 >> (4 * p)) & 0x0F0F0F0F) | (((high[1] >> pair) & 0x01010101) << 4)
    return scaled(j, d * scale, q0, q1, 0) - (dmin * low)[:, None]


@triton.jit
def load_q6_k(words, block, lane):
    """210 bytes: 128 of nibbles, 64 of 2 bits, 16 signed scales, d."""
    at = words + block * 105
    half, i = lane >> 2, (lane & 3) * 4
    q, h, s = at + half * 32 + i, at + 64 + half * 16 + i, at + 96 + half * 4
    low = (two_words(q, 0), two_words(q, 2), two_words(q, 16), two_words(q, 18))
    return (
        low,
        (two_words(h, 0), two_words(h, 2)),
        two_words(s, 0),
        two_words(s, 2),
        as_half(one_word(at, 104)),
    )


@triton.jit
def plane_q6_k(unit, lane, j, p: tl.constexpr):
    """W = (d scale) (q - 32); a scale for 16 weights."""
    low, high, s0, s1, d = unit
    s = signed(byte_at(s0 if p < 2 else s1, (p & 1) * 2 + ((lane & 3) >> 1)))
    q0, q1 = low[2 * (p & 1)], low[2 * (p & 1) + 1]
    q0 = ((q0 >> (4 * (p >> 1))) & 0x0F0F0F0F) | (((high[0] >> (2 * p)) & 0x03030303) << 4)
    q1 = ((q1 >> (4 * (p >> 1))) & 0x0F0F0F0F) | (((high[1] >> (2 * p)) & 0x03030303) << 4)
    return scaled(j, d * s.to(tl.float32), q0, q1, 32)
