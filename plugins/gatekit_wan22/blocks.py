"""GGUF blocks -> float32 weights, by torch's operations, on any device.

One function a block type: ``[n, bytes of a block]`` uint8 in, ``[n, weights of a block]``
float32 filled. The results equal gguf-py's bit for bit; the tests hold this for every type. All
products are exact in float32 (11 bits of a half, at most 7 of a scale, 6 of a quant), so each
weight is rounded once, where its minimum is added or subtracted.

On a CPU three things make the difference: fields of bits are moved in words of 64 bits, as torch
shifts bytes one by one; weights are made where they belong, in place, as fresh memory costs more
than the arithmetic; and so few blocks are decoded at a time that they stay in the core's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Decoder = Callable[[Tensor, Tensor], object]

CODEBOOK = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # of IQ4


def _read_as(data: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes ``[..., k]`` as numbers of more bytes, whatever their strides and their place."""
    flat = data.reshape(-1)
    if flat.storage_offset() % dtype.itemsize:
        flat = flat.clone()
    return flat.view(dtype).view(*data.shape[:-1], -1)


def half(data: Tensor) -> Tensor:
    """Bytes ``[n, 2k]`` -> ``[n, k]``, read as float16 and widened to float32."""
    import torch

    return _read_as(data, torch.float16).float()


def nibbles(data: Tensor) -> Tensor:
    """Bytes ``[..., k]`` -> ``[..., 2, k]``: the low halves, then the high halves."""
    return bits(data, 4, 2)


def bits(data: Tensor, width: int, count: int) -> Tensor:
    """Bytes ``[..., k]`` -> ``[..., count, k]``: fields of ``width`` bits, lowest first."""
    import torch

    size = data.shape[-1]
    word = next(t for t in (torch.int64, torch.int32, torch.uint8) if size % t.itemsize == 0)
    mask = int.from_bytes(bytes([(1 << width) - 1] * word.itemsize), "little")
    words = _read_as(data, word)
    out = data.new_empty(*data.shape[:-1], count, size)
    fields = out.view(word)
    for i in range(count):
        torch.bitwise_and(words >> (width * i), mask, out=fields[..., i, :])
    return out


def _fill(out: Tensor, scale: Tensor, q: Tensor, low: Tensor | None = None) -> None:
    """Scale * q - low; ``scale`` and ``low`` are ``[n, groups]`` of equally many weights."""
    w = out.view(len(out), scale.shape[1], -1)
    w.copy_(q.reshape(w.shape))
    w.mul_(scale.unsqueeze(-1))
    if low is not None:
        w.sub_(low.unsqueeze(-1))


def _less(q: Tensor, offset: int) -> Tensor:
    """Bytes less an offset, signed."""
    import torch

    return q.view(torch.int8).sub_(offset)


def q4_0(b: Tensor, out: Tensor) -> None:
    """d: f16, 16 bytes of nibbles. w = d * (q - 8)."""
    _fill(out, half(b[:, :2]), _less(nibbles(b[:, 2:]), 8))


def q4_1(b: Tensor, out: Tensor) -> None:
    """d, m: f16, 16 bytes of nibbles. w = d * q + m."""
    _fill(out, half(b[:, :2]), nibbles(b[:, 4:]), -half(b[:, 2:4]))


def _fifth_bits(data: Tensor) -> Tensor:
    """Four bytes, one bit a weight, weight 0 in the lowest -> ``[n, 2, 16]`` of 0 or 16."""
    return bits(data.unsqueeze(-1), 1, 8).mul_(16).view(-1, 2, 16)


def q5_0(b: Tensor, out: Tensor) -> None:
    """d: f16, 32 high bits, 16 bytes of nibbles. w = d * (q - 16)."""
    q = nibbles(b[:, 6:]).bitwise_or_(_fifth_bits(b[:, 2:6]))
    _fill(out, half(b[:, :2]), _less(q, 16))


def q5_1(b: Tensor, out: Tensor) -> None:
    """d, m: f16, 32 high bits, 16 bytes of nibbles. w = d * q + m."""
    q = nibbles(b[:, 8:]).bitwise_or_(_fifth_bits(b[:, 4:8]))
    _fill(out, half(b[:, :2]), q, -half(b[:, 2:4]))


def q8_0(b: Tensor, out: Tensor) -> None:
    """d: f16, 32 signed bytes. w = d * q."""
    import torch

    _fill(out, half(b[:, :2]), b[:, 2:].view(torch.int8))


def q2_k(b: Tensor, out: Tensor) -> None:
    """16 scale bytes (low nibble d, high nibble m), 64 bytes of 2 bits, d, dmin: f16.

    Weights go in halves of 128: four planes of 32. w = (d * scale) * q - dmin * min.
    """
    scales = nibbles(b[:, :16]).float()
    d, dmin = half(b[:, 80:82]), half(b[:, 82:84])
    q = bits(b[:, 16:80].reshape(-1, 2, 32), 2, 4)
    _fill(out, d * scales[:, 0], q, dmin * scales[:, 1])


def q3_k(b: Tensor, out: Tensor) -> None:
    """32 bytes of high bits, 64 bytes of 2 bits, 12 bytes of sixteen 6-bit scales, d: f16.

    w = (d * (scale - 32)) * (q - 4 where the high bit is clear).
    """
    low = bits(b[:, 32:96].reshape(-1, 2, 32), 2, 4)
    q = low.bitwise_or_(bits(b[:, :32], 1, 8).mul_(4).view(low.shape))
    packed = b[:, 96:108]
    scales = nibbles(packed[:, :8]).view(-1, 16)
    scales = scales.bitwise_or_(bits(packed[:, 8:], 2, 4).mul_(16).view(-1, 16))
    _fill(out, half(b[:, 108:110]) * _less(scales, 32).float(), _less(q, 4))


def _scales_and_mins(packed: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes -> eight 6-bit scales and eight 6-bit minima, for Q4_K and Q5_K."""
    import torch

    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((first & 0x3F, (third & 0x0F) | ((first >> 2) & 0x30)), dim=1)
    mins = torch.cat((second & 0x3F, (third >> 4) | ((second >> 2) & 0x30)), dim=1)
    return scales.float(), mins.float()


def _fill_scaled(b: Tensor, out: Tensor, q: Tensor) -> None:
    """The head that Q4_K and Q5_K share, applied to ``q`` of ``[n, 8, 32]``."""
    scales, mins = _scales_and_mins(b[:, 4:16])
    _fill(out, half(b[:, :2]) * scales, q, half(b[:, 2:4]) * mins)


def q4_k(b: Tensor, out: Tensor) -> None:
    """d, dmin: f16, 12 bytes of scales and minima, 128 bytes of nibbles."""
    _fill_scaled(b, out, nibbles(b[:, 16:].reshape(-1, 4, 32)))


def q5_k(b: Tensor, out: Tensor) -> None:
    """As Q4_K, with 32 bytes of fifth bits between the scales and the nibbles."""
    q = nibbles(b[:, 48:].reshape(-1, 4, 32))
    _fill_scaled(b, out, q.bitwise_or_(bits(b[:, 16:48], 1, 8).mul_(16).view(q.shape)))


def q6_k(b: Tensor, out: Tensor) -> None:
    """128 bytes of nibbles, 64 bytes of 2 bits, 16 signed scales, d: f16.

    w = (d * scale) * (q - 32).
    """
    import torch

    q = nibbles(b[:, :128].reshape(-1, 2, 64)).view(-1, 2, 4, 32)
    q = q.bitwise_or_(bits(b[:, 128:192].reshape(-1, 2, 32), 2, 4).mul_(16))
    scale = half(b[:, 208:210]) * b[:, 192:208].view(torch.int8).float()
    _fill(out, scale, _less(q, 32))


def q8_k(b: Tensor, out: Tensor) -> None:
    """d: f32, 256 signed bytes, 16 sums that only integer products use. w = d * q."""
    import torch

    _fill(out, _read_as(b[:, :4], torch.float32), b[:, 4:260].view(torch.int8))


def _values(q: Tensor) -> Tensor:
    """IQ4's nibbles -> the values they stand for."""
    import torch

    return torch.tensor(CODEBOOK, dtype=torch.float32, device=q.device)[q.int()]


def iq4_nl(b: Tensor, out: Tensor) -> None:
    """d: f16, 16 bytes of nibbles. w = d * value(q)."""
    _fill(out, half(b[:, :2]), _values(nibbles(b[:, 2:])))


def iq4_xs(b: Tensor, out: Tensor) -> None:
    """d: f16, 2 bytes of high and 4 of low scale bits, 128 bytes of nibbles.

    w = (d * (scale - 32)) * value(q).
    """
    high = bits(b[:, 2:4].unsqueeze(-1), 2, 4).view(-1, 8)
    low = bits(b[:, 4:8].unsqueeze(-1), 4, 2).view(-1, 8)
    scales = _less(low.bitwise_or_(high.mul_(16)), 32).float()
    _fill(out, half(b[:, :2]) * scales, _values(nibbles(b[:, 8:].reshape(-1, 8, 16))))


DECODERS: dict[str, Decoder] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0,
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k, "Q8_K": q8_k,
    "IQ4_NL": iq4_nl, "IQ4_XS": iq4_xs,
}  # fmt: skip
