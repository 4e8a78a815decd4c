"""Words of a block to bytes, halves and weights, in Triton: what the decoders share."""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def byte_at(word, index):
    """Byte ``index`` of 32 bits, lowest first."""
    return (word >> (8 * index)) & 0xFF


@triton.jit
def as_half(word):
    """The low 16 bits as float16, widened."""
    return word.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def two_words(words, at):
    """32 bits from two of 16, at ``at`` and ``at + 1``; words are int16."""
    low = tl.load(words + at).to(tl.int32) & 0xFFFF
    return low | (tl.load(words + at + 1).to(tl.int32) << 16)


@triton.jit
def one_word(words, at):
    """16 bits, unsigned."""
    return tl.load(words + at).to(tl.int32) & 0xFFFF


@triton.jit
def signed(byte):
    """0 to 255 -> -128 to 127."""
    return ((byte & 0xFF) ^ 0x80) - 0x80


@triton.jit
def eight_bytes(j, first, second):
    """Two words of 4 bytes -> ``[units, 8]`` bytes. A lane holds its 8: no data moves.

    ``j``, 0 to 7 as ``[1, 8]``, comes from the kernel: how it lies in registers is the kernel's.
    """
    return byte_at(tl.where(j < 4, first[:, None], second[:, None]), j & 3)


@triton.jit
def scaled(j, scale, first, second, offset: tl.constexpr):
    """Scale * (q - offset) of the 8 bytes q (below 128) of two words -> ``[units, 8]``.

    A byte is not shifted down: it is masked where it stands and converted there, as q, 2^8 q,
    2^16 q or 2^24 q, and the scale is divided by as much. All of it is exact, and takes two
    operations on integers a weight.
    """
    k = j & 3
    word = tl.where(j < 4, first[:, None], second[:, None])
    mask = tl.where(k < 2, tl.where(k == 0, 0xFF, 0xFF00), tl.where(k == 2, 0xFF0000, 0x7F000000))
    unit = tl.where(k < 2, tl.where(k == 0, 1.0, 256.0), tl.where(k == 2, 65536.0, 16777216.0))
    return (scale[:, None] * (1 / unit)) * ((word & mask).to(tl.float32) - offset * unit)
