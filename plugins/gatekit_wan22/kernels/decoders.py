"""GGUF blocks -> float32 in registers: for each type a loader and a plane, in Triton.

Every type is cut into *units* of one shape, so that one kernel body serves all:

- A unit is 8 neighbouring bytes of quants and all weights that they hold: P planes of 8 weights,
  P = 4 for 2 bits, 2 for nibbles, 1 for bytes. A lane of a warp holds a unit; its quants are read
  once, as words. The 8 weights of a plane are neighbours in the row: 16 bytes of bf16, one store.
- Neighbouring lanes hold neighbouring units, so a warp reads a stretch of the file without holes.
  Words are 32 bits where a block's size is a multiple of 4 (Q2_K 84, Q4_K 144, Q5_K 176, Q4_1 20,
  Q5_1 24, IQ4_XS 136), else 16 (Q3_K 110, Q6_K 210, Q8_0 34, Q4_0 and IQ4_NL 18, Q5_0 22). Only
  Q4_K's and Q5_K's sizes allow more, and it would save little: the words of a lane lie in the same
  32-byte sectors, and all but the first come from L1.
- 4 (K) or 2 (legacy, IQ4) neighbouring lanes write 64 or 32 bytes without a hole: whole sectors.

``load_*(words, block, lane)`` returns what a unit needs, ``plane_*(unit, lane, p)`` its 8 weights
``[units, 8]`` of plane ``p``. The arithmetic and its order are those of ``dequantise.py``. Products
are exact in float32 (11 bits of a half, at most 7 of a scale, 6 of a quant: 24), so each weight
is rounded once, in the subtraction of its minimum, and it makes no difference whether a compiler
contracts the product and the subtraction.
"""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
import triton.language as tl


@triton.jit
def _byte(word, index):
    """Byte ``index`` of 32 bits, lowest first."""
    return (word >> (8 * index)) & 0xFF


@triton.jit
def _half(word):
    """The low 16 bits as float16, widened."""
    return word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _two(words, at):
    """32 bits from two of 16, at ``at`` and ``at + 1``; words are int16."""
    low = tl.load(words + at).to(tl.int32) & 0xFFFF
    return low | (tl.load(words + at + 1).to(tl.int32) << 16)


@triton.jit
def _one(words, at):
    """16 bits, unsigned."""
    return tl.load(words + at).to(tl.int32) & 0xFFFF


@triton.jit
def _signed(byte):
    """0 to 255 -> -128 to 127."""
    return ((byte & 0xFF) ^ 0x80) - 0x80


@triton.jit
def _eight(first, second):
    """Two words of 4 bytes -> ``[units, 8]`` bytes. A lane holds its 8: no data moves."""
    j = tl.arange(0, 8)[None, :]
    return _byte(tl.where(j < 4, first[:, None], second[:, None]), j & 3)


@triton.jit
def _times(scale, first, second, offset: tl.constexpr):
    """Scale * (q - offset) of the 8 bytes q (below 128) of two words -> ``[units, 8]``.

    A byte is not shifted down: it is masked where it stands and converted there, as q, 2^8 q,
    2^16 q or 2^24 q, and the scale is divided by as much. All of it is exact, and takes two
    operations on integers a weight.
    """
    j = tl.arange(0, 8)[None, :]
    k = j & 3
    word = tl.where(j < 4, first[:, None], second[:, None])
    mask = tl.where(k < 2, tl.where(k == 0, 0xFF, 0xFF00), tl.where(k == 2, 0xFF0000, 0x7F000000))
    unit = tl.where(k < 2, tl.where(k == 0, 1.0, 256.0), tl.where(k == 2, 65536.0, 16777216.0))
    return (scale[:, None] * (1 / unit)) * ((word & mask).to(tl.float32) - offset * unit)


@triton.jit
def load_q2_k(words, block, lane):
    """84 bytes: 16 of scales and minima, 64 of 2 bits, d, dmin."""
    at = words + block * 21
    half = lane >> 2
    q, s = at + 4 + half * 8 + (lane & 3) * 2, at + half * 2
    d = tl.load(at + 20)
    return tl.load(q), tl.load(q + 1), tl.load(s), tl.load(s + 1), _half(d), _half(d >> 16)


@triton.jit
def plane_q2_k(unit, lane, p: tl.constexpr):
    """W = (d scale) q - dmin min; a scale for 16 weights."""
    q0, q1, s0, s1, d, dmin = unit
    s = _byte(s0 if p < 2 else s1, (p & 1) * 2 + ((lane & 3) >> 1))
    scale, low = d * (s & 15).to(tl.float32), dmin * (s >> 4).to(tl.float32)
    q0, q1 = (q0 >> (2 * p)) & 0x03030303, (q1 >> (2 * p)) & 0x03030303
    return _times(scale, q0, q1, 0) - low[:, None]


@triton.jit
def load_q3_k(words, block, lane):
    """110 bytes: 32 of high bits, 64 of 2 bits, 12 of scales, d."""
    at = words + block * 55
    h, q, s = at + (lane & 3) * 4, at + 16 + (lane >> 2) * 16 + (lane & 3) * 4, at + 48
    high, low = (_two(h, 0), _two(h, 2)), (_two(q, 0), _two(q, 2))
    return low, high, _two(s, 0), _two(s, 2), _two(s, 4), _half(_one(at, 54))


@triton.jit
def plane_q3_k(unit, lane, p: tl.constexpr):
    """W = (d (scale - 32)) (q - 4 where the high bit is clear); a scale for 16 weights."""
    low, high, s0, s1, s2, d = unit
    half, index = lane >> 2, (p & 1) * 2 + ((lane & 3) >> 1)
    s = (_byte(s0 if p < 2 else s1, index) >> (4 * half)) & 15
    s |= ((_byte(s2, index) >> (4 * half + 2 * (p >> 1))) & 3) << 4
    q0 = ((low[0] >> (2 * p)) & 0x03030303) | (((high[0] >> (4 * half + p)) & 0x01010101) << 2)
    q1 = ((low[1] >> (2 * p)) & 0x03030303) | (((high[1] >> (4 * half + p)) & 0x01010101) << 2)
    return _times(d * (s - 32).to(tl.float32), q0, q1, 4)


@triton.jit
def _scale_and_min(first, second, third, s):
    """Scale and minimum ``s`` of the eight 6-bit pairs in 12 bytes."""
    index = s & 3
    f, m, t = _byte(first, index), _byte(second, index), _byte(third, index)
    scale = tl.where(s < 4, f & 63, (t & 15) | ((f >> 2) & 0x30))
    low = tl.where(s < 4, m & 63, (t >> 4) | ((m >> 2) & 0x30))
    return scale.to(tl.float32), low.to(tl.float32)


@triton.jit
def load_q4_k(words, block, lane):
    """144 bytes: d, dmin, 12 of scales and minima, 128 of nibbles."""
    at = words + block * 36
    q, d = at + 4 + (lane >> 2) * 8 + (lane & 3) * 2, tl.load(at)
    s = (tl.load(at + 1), tl.load(at + 2), tl.load(at + 3))
    return tl.load(q), tl.load(q + 1), s, _half(d), _half(d >> 16)


@triton.jit
def plane_q4_k(unit, lane, p: tl.constexpr):
    """W = (d scale) q - dmin min; a pair for 32 weights."""
    q0, q1, s, d, dmin = unit
    scale, low = _scale_and_min(s[0], s[1], s[2], (lane >> 2) * 2 + p)
    q0, q1 = (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F
    return _times(d * scale, q0, q1, 0) - (dmin * low)[:, None]


@triton.jit
def load_q5_k(words, block, lane):
    """176 bytes: as Q4_K, with 32 of fifth bits before the nibbles."""
    at = words + block * 44
    h, q, d = at + 4 + (lane & 3) * 2, at + 12 + (lane >> 2) * 8 + (lane & 3) * 2, tl.load(at)
    s = (tl.load(at + 1), tl.load(at + 2), tl.load(at + 3))
    high = (tl.load(h), tl.load(h + 1))
    return tl.load(q), tl.load(q + 1), high, s, _half(d), _half(d >> 16)


@triton.jit
def plane_q5_k(unit, lane, p: tl.constexpr):
    """As Q4_K, with the fifth bit."""
    q0, q1, high, s, d, dmin = unit
    pair = (lane >> 2) * 2 + p
    scale, low = _scale_and_min(s[0], s[1], s[2], pair)
    q0 = ((q0 >> (4 * p)) & 0x0F0F0F0F) | (((high[0] >> pair) & 0x01010101) << 4)
    q1 = ((q1 >> (4 * p)) & 0x0F0F0F0F) | (((high[1] >> pair) & 0x01010101) << 4)
    return _times(d * scale, q0, q1, 0) - (dmin * low)[:, None]


@triton.jit
def load_q6_k(words, block, lane):
    """210 bytes: 128 of nibbles, 64 of 2 bits, 16 signed scales, d."""
    at = words + block * 105
    half, i = lane >> 2, (lane & 3) * 4
    q, h, s = at + half * 32 + i, at + 64 + half * 16 + i, at + 96 + half * 4
    low = (_two(q, 0), _two(q, 2), _two(q, 16), _two(q, 18))
    return low, (_two(h, 0), _two(h, 2)), _two(s, 0), _two(s, 2), _half(_one(at, 104))


@triton.jit
def plane_q6_k(unit, lane, p: tl.constexpr):
    """W = (d scale) (q - 32); a scale for 16 weights."""
    low, high, s0, s1, d = unit
    s = _signed(_byte(s0 if p < 2 else s1, (p & 1) * 2 + ((lane & 3) >> 1)))
    q0, q1 = low[2 * (p & 1)], low[2 * (p & 1) + 1]
    q0 = ((q0 >> (4 * (p >> 1))) & 0x0F0F0F0F) | (((high[0] >> (2 * p)) & 0x03030303) << 4)
    q1 = ((q1 >> (4 * (p >> 1))) & 0x0F0F0F0F) | (((high[1] >> (2 * p)) & 0x03030303) << 4)
    return _times(d * s.to(tl.float32), q0, q1, 32)


@triton.jit
def load_q8_0(words, block, lane):
    """34 bytes: d, 32 signed."""
    at = words + block * 17
    return _two(at, 1 + lane * 4), _two(at, 3 + lane * 4), _half(_one(at, 0))


@triton.jit
def plane_q8_0(unit, lane, p: tl.constexpr):
    """W = d q."""
    q0, q1, d = unit
    return d[:, None] * _signed(_eight(q0, q1)).to(tl.float32)


@triton.jit
def load_q4_0(words, block, lane):
    """18 bytes: d, 16 of nibbles. IQ4_NL has the same."""
    at = words + block * 9
    return _two(at, 1 + lane * 4), _two(at, 3 + lane * 4), _half(_one(at, 0))


@triton.jit
def plane_q4_0(unit, lane, p: tl.constexpr):
    """W = d (q - 8)."""
    q0, q1, d = unit
    return _times(d, (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F, 8)


@triton.jit
def load_q4_1(words, block, lane):
    """20 bytes: d, m, 16 of nibbles."""
    at = words + block * 5
    d = tl.load(at)
    return tl.load(at + 1 + lane * 2), tl.load(at + 2 + lane * 2), _half(d), _half(d >> 16)


@triton.jit
def plane_q4_1(unit, lane, p: tl.constexpr):
    """W = d q + m."""
    q0, q1, d, m = unit
    q0, q1 = (q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F
    return _times(d, q0, q1, 0) + m[:, None]


@triton.jit
def _spread(bits):
    """Four bits -> bit 4 of the four bytes."""
    return ((bits * 0x204081) & 0x01010101) << 4


@triton.jit
def _with_fifth(q0, q1, high, lane, p: tl.constexpr):
    """Nibbles of plane ``p`` with their bits of 32, weight 0 in the lowest."""
    bits = _byte(high, 2 * p + lane)
    return (
        ((q0 >> (4 * p)) & 0x0F0F0F0F) | _spread(bits & 15),
        ((q1 >> (4 * p)) & 0x0F0F0F0F) | _spread(bits >> 4),
    )


@triton.jit
def load_q5_0(words, block, lane):
    """22 bytes: d, 32 fifth bits, 16 of nibbles."""
    at = words + block * 11
    q = at + 3 + lane * 4
    return _two(q, 0), _two(q, 2), _two(at, 1), _half(_one(at, 0))


@triton.jit
def plane_q5_0(unit, lane, p: tl.constexpr):
    """W = d (q - 16)."""
    q0, q1, high, d = unit
    q = _with_fifth(q0, q1, high, lane, p)
    return _times(d, q[0], q[1], 16)


@triton.jit
def load_q5_1(words, block, lane):
    """24 bytes: d, m, 32 fifth bits, 16 of nibbles."""
    at = words + block * 6
    q, d = at + 2 + lane * 2, tl.load(at)
    return tl.load(q), tl.load(q + 1), tl.load(at + 1), _half(d), _half(d >> 16)


@triton.jit
def plane_q5_1(unit, lane, p: tl.constexpr):
    """W = d q + m."""
    q0, q1, high, d, m = unit
    q = _with_fifth(q0, q1, high, lane, p)
    return _times(d, q[0], q[1], 0) + m[:, None]


@triton.jit
def _codebook(q):
    """IQ4's sixteen values (-127, -104, ... 113) + 128, from four words of bytes.

    Selected, not looked up: a load a weight would cost as much as all else together.
    """
    low = tl.where(q < 4, 0x3F2D1801, 0x766A5D4F)
    high = tl.where(q < 12, 0xA6998D81 - (1 << 32), 0xF1D9C5B5 - (1 << 32))
    return _byte(tl.where(q < 8, low, high), q & 3)


@triton.jit
def plane_iq4_nl(unit, lane, p: tl.constexpr):
    """W = d value(q)."""
    q0, q1, d = unit
    q = _eight((q0 >> (4 * p)) & 0x0F0F0F0F, (q1 >> (4 * p)) & 0x0F0F0F0F)
    return d[:, None] * (_codebook(q) - 128).to(tl.float32)


@triton.jit
def load_iq4_xs(words, block, lane):
    """136 bytes: d, 2 of high scale bits, 4 of low ones, 128 of nibbles."""
    at = words + block * 34
    q, d, part = at + 2 + lane * 2, tl.load(at), lane >> 1
    s = (_byte(tl.load(at + 1), part >> 1) >> (4 * (part & 1))) & 15
    s |= ((d >> (16 + 2 * part)) & 3) << 4
    return tl.load(q), tl.load(q + 1), _half(d) * (s - 32).to(tl.float32)


@dataclass(frozen=True)
class Kind:
    """How a type is cut into units.

    Args:
        load: Its loader.
        plane: Its plane.
        weights: Weights of a block.
        size: Bytes of a block.
        planes: Planes of a unit.
        run: Neighbouring units whose weights in a plane are neighbours.
    """

    load: Any
    plane: Any
    weights: int
    size: int
    planes: int
    run: int

    @property
    def word(self) -> int:
        """Bytes of a word: what a block's size is a multiple of."""
        return 2 if self.size % 4 else 4

    @property
    def lanes(self) -> int:
        """Units of a block."""
        return self.weights // (8 * self.planes)

    @property
    def constants(self) -> dict[str, Any]:
        """What a kernel is compiled for."""
        return {
            "LOAD": self.load,
            "PLANE": self.plane,
            "WEIGHTS": self.weights,
            "WORDS": self.size // self.word,
            "PLANES": self.planes,
            "RUN": self.run,
            "LANES": self.lanes,
        }


KINDS = {
    "Q2_K": Kind(load_q2_k, plane_q2_k, 256, 84, 4, 4),
    "Q3_K": Kind(load_q3_k, plane_q3_k, 256, 110, 4, 4),
    "Q4_K": Kind(load_q4_k, plane_q4_k, 256, 144, 2, 4),
    "Q5_K": Kind(load_q5_k, plane_q5_k, 256, 176, 2, 4),
    "Q6_K": Kind(load_q6_k, plane_q6_k, 256, 210, 4, 4),
    "Q8_0": Kind(load_q8_0, plane_q8_0, 32, 34, 1, 4),
    "Q4_0": Kind(load_q4_0, plane_q4_0, 32, 18, 2, 2),
    "Q4_1": Kind(load_q4_1, plane_q4_1, 32, 20, 2, 2),
    "Q5_0": Kind(load_q5_0, plane_q5_0, 32, 22, 2, 2),
    "Q5_1": Kind(load_q5_1, plane_q5_1, 32, 24, 2, 2),
    "IQ4_NL": Kind(load_q4_0, plane_iq4_nl, 32, 18, 2, 2),
    "IQ4_XS": Kind(load_iq4_xs, plane_iq4_nl, 256, 136, 2, 2),
}
