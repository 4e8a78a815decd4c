"""GGUF blocks -> float32 weights, in torch, on the device where the blocks are.

One function a block type: ``[n, bytes of a block]`` uint8 in, ``[n, weights of a block]``
float32 out. The order of the operations is that of GGML, so the results equal gguf-py's
bit for bit; the tests hold this for every type. Types without a function here (IQ, TQ,
MXFP4) go through gguf-py's own numpy code on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from gguf.constants import GGMLQuantizationType
    from torch import Tensor

    Decoder = Callable[[Tensor], Tensor]

PLAIN = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
CHUNK = 1 << 23  # weights decoded at a time; bounds the intermediates to about 100 MB


def half(data: Tensor) -> Tensor:
    """Bytes ``[n, 2k]`` -> ``[n, k]``, read as float16 and widened to float32."""
    import torch

    return data.contiguous().view(torch.float16).float()


def nibbles(data: Tensor) -> Tensor:
    """Bytes ``[..., k]`` -> ``[..., 2, k]``: the low halves, then the high halves."""
    import torch

    return torch.stack((data & 0x0F, data >> 4), dim=-2)


def bits(data: Tensor, width: int, count: int) -> Tensor:
    """Bytes ``[..., k]`` -> ``[..., count, k]``: fields of ``width`` bits, lowest first."""
    import torch

    mask = (1 << width) - 1
    return torch.stack([(data >> (width * i)) & mask for i in range(count)], dim=-2)


def q4_0(b: Tensor) -> Tensor:
    """d: f16, 16 bytes of nibbles. w = d * (q - 8)."""
    q = nibbles(b[:, 2:]).flatten(1).float() - 8.0
    return half(b[:, :2]) * q


def q4_1(b: Tensor) -> Tensor:
    """d, m: f16, 16 bytes of nibbles. w = d * q + m."""
    q = nibbles(b[:, 4:]).flatten(1).float()
    return half(b[:, :2]) * q + half(b[:, 2:4])


def _fifth_bits(data: Tensor) -> Tensor:
    """Four bytes, one bit a weight, weight 0 in the lowest -> ``[n, 32]``."""
    return bits(data.unsqueeze(-1), 1, 8).flatten(1)


def q5_0(b: Tensor) -> Tensor:
    """d: f16, 32 high bits, 16 bytes of nibbles. w = d * (q - 16)."""
    q = nibbles(b[:, 6:]).flatten(1) | (_fifth_bits(b[:, 2:6]) << 4)
    return half(b[:, :2]) * (q.float() - 16.0)


def q5_1(b: Tensor) -> Tensor:
    """d, m: f16, 32 high bits, 16 bytes of nibbles. w = d * q + m."""
    q = nibbles(b[:, 8:]).flatten(1) | (_fifth_bits(b[:, 4:8]) << 4)
    return half(b[:, :2]) * q.float() + half(b[:, 2:4])


def q8_0(b: Tensor) -> Tensor:
    """d: f16, 32 signed bytes. w = d * q."""
    import torch

    return half(b[:, :2]) * b[:, 2:].contiguous().view(torch.int8).float()


def q2_k(b: Tensor) -> Tensor:
    """16 scale bytes (low nibble d, high nibble m), 64 bytes of 2 bits, d, dmin: f16.

    Weights go in halves of 128: four planes of 32. w = (d * scale) * q - dmin * min.
    """
    scales, qs = b[:, :16], b[:, 16:80]
    d, dmin = half(b[:, 80:82]), half(b[:, 82:84])
    q = bits(qs.reshape(-1, 2, 32), 2, 4).reshape(-1, 16, 16).float()
    scale = (d * (scales & 0x0F).float()).unsqueeze(-1)
    low = (dmin * (scales >> 4).float()).unsqueeze(-1)
    return (scale * q - low).flatten(1)


def q3_k(b: Tensor) -> Tensor:
    """32 bytes of high bits, 64 bytes of 2 bits, 12 bytes of sixteen 6-bit scales, d: f16.

    w = (d * (scale - 32)) * (q - 4 where the high bit is clear).
    """
    import torch

    high = bits(b[:, None, :32], 1, 8).reshape(-1, 256)
    low = bits(b[:, 32:96].reshape(-1, 2, 32), 2, 4).reshape(-1, 256)
    packed = b[:, 96:108]
    scales = nibbles(packed[:, :8]).flatten(1) | (bits(packed[:, 8:], 2, 4).flatten(1) << 4)
    scale = half(b[:, 108:110]) * (scales.to(torch.int8) - 32).float()
    q = low.to(torch.int8) - ((high ^ 1) << 2).to(torch.int8)
    return (scale.unsqueeze(-1) * q.reshape(-1, 16, 16).float()).flatten(1)


def _scales_and_mins(packed: Tensor) -> tuple[Tensor, Tensor]:
    """12 bytes -> eight 6-bit scales and eight 6-bit minima, for Q4_K and Q5_K."""
    import torch

    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:12]
    scales = torch.cat((first & 0x3F, (third & 0x0F) | ((first >> 2) & 0x30)), dim=1)
    mins = torch.cat((second & 0x3F, (third >> 4) | ((second >> 2) & 0x30)), dim=1)
    return scales.float(), mins.float()


def _scaled(b: Tensor, q: Tensor) -> Tensor:
    """The head that Q4_K and Q5_K share, applied to ``q`` of ``[n, 8, 32]``."""
    scales, mins = _scales_and_mins(b[:, 4:16])
    scale = (half(b[:, :2]) * scales).unsqueeze(-1)
    low = (half(b[:, 2:4]) * mins).unsqueeze(-1)
    return (scale * q.float() - low).flatten(1)


def q4_k(b: Tensor) -> Tensor:
    """d, dmin: f16, 12 bytes of scales and minima, 128 bytes of nibbles."""
    return _scaled(b, nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32))


def q5_k(b: Tensor) -> Tensor:
    """As Q4_K, with 32 bytes of fifth bits between the scales and the nibbles."""
    high = bits(b[:, None, 16:48], 1, 8).reshape(-1, 8, 32)
    low = nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return _scaled(b, low | (high << 4))


def q6_k(b: Tensor) -> Tensor:
    """128 bytes of nibbles, 64 bytes of 2 bits, 16 signed scales, d: f16.

    w = (d * scale) * (q - 32).
    """
    import torch

    low = nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    high = bits(b[:, 128:192].reshape(-1, 2, 32), 2, 4).reshape(-1, 256)
    q = (low | (high << 4)).to(torch.int8) - 32
    scale = half(b[:, 208:210]) * b[:, 192:208].contiguous().view(torch.int8).float()
    return (scale.unsqueeze(-1) * q.reshape(-1, 16, 16).float()).flatten(1)


def q8_k(b: Tensor) -> Tensor:
    """d: f32, 256 signed bytes, 16 sums that only integer products use. w = d * q."""
    import torch

    return b[:, :4].contiguous().view(torch.float32) * (
        b[:, 4:260].contiguous().view(torch.int8).float()
    )


DECODERS: dict[str, Decoder] = {
    "Q4_0": q4_0, "Q4_1": q4_1, "Q5_0": q5_0, "Q5_1": q5_1, "Q8_0": q8_0,
    "Q2_K": q2_k, "Q3_K": q3_k, "Q4_K": q4_k, "Q5_K": q5_k, "Q6_K": q6_k, "Q8_K": q8_k,
}  # fmt: skip


def readable(type_name: str) -> bool:
    """Whether ``dequantise`` takes a type; imports gguf-py only for one not known here."""
    return type_name in DECODERS or type_name in PLAIN or type_name in readable_types()


def readable_types() -> frozenset[str]:
    """Names of all tensor types that ``dequantise`` takes."""
    from gguf import quants

    return frozenset(DECODERS) | set(PLAIN) | {t.name for t in quants._type_traits}


def dequantise(
    data: Tensor,
    type_name: str,
    dtype: torch.dtype | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Decode the bytes of a tensor.

    Args:
        data: uint8, one-dimensional, whole blocks.
        type_name: GGML's name of the type, such as ``Q5_K``, or safetensors' of an fp8.
        dtype: Result type; None is float32. The arithmetic is in float32 either way.
        scale: float32, one number, or one for each equal part of the weights (a row), that
            they are multiplied by before they are rounded to ``dtype``.

    Returns:
        One-dimensional tensor on ``data``'s device.
    """
    import torch

    dtype = dtype or torch.float32
    if scale is not None:
        return _scaled_rows(dequantise(data, type_name, _stored_type(type_name)), scale, dtype)
    if type_name in PLAIN:
        plain = _stored_type(type_name)
        if data.storage_offset() % plain.itemsize:  # a writer that does not align its header
            data = data.clone()
        return data.view(plain).to(dtype)
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[type_name]
    weights, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = data.view(-1, block_bytes)
    decode = DECODERS.get(type_name) or _by_gguf_py(kind)
    out = torch.empty(len(blocks), weights, dtype=dtype, device=data.device)
    step = max(1, CHUNK // weights)
    for start in range(0, len(blocks), step):
        out[start : start + step] = decode(blocks[start : start + step])
    return out.flatten()


def _stored_type(type_name: str) -> torch.dtype:
    """Torch's type of a stored one; float32 for blocks."""
    import torch

    return getattr(torch, PLAIN.get(type_name, "float32"))


def _scaled_rows(stored: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights times the scale of their row, multiplied in float32, a chunk at a time."""
    import torch

    rows = scale.numel()
    width = max(1, stored.numel() // rows)
    step = CHUNK if rows == 1 else max(1, CHUNK // width) * width
    out = torch.empty(stored.numel(), dtype=dtype, device=stored.device)
    for start in range(0, stored.numel(), step):
        part = stored[start : start + step].float()
        if rows == 1:
            out[start : start + step] = part * scale.view(())
        else:
            factors = scale.view(-1, 1)[start // width : (start + step) // width]
            out[start : start + step] = (part.view(-1, width) * factors).flatten()
    return out


def _by_gguf_py(kind: GGMLQuantizationType) -> Decoder:
    """gguf-py's numpy code as a decoder, on the CPU whatever the device."""
    import numpy as np
    import torch
    from gguf import quants

    def decode(blocks: Tensor) -> Tensor:
        with np.errstate(all="ignore"):
            decoded = quants.dequantize(blocks.cpu().numpy(), kind)
        return torch.from_numpy(decoded).to(blocks.device)

    return decode
