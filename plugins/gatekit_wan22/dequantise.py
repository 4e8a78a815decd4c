"""Stored bytes -> weights: one door for every type and device.

Blocks on a GPU go through the Triton kernels, elsewhere through ``blocks``; types that neither
knows (IQ1 to IQ3, TQ, MXFP4) through gguf-py's own numpy code on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .blocks import DECODERS
from .kernels import kernel_kind

if TYPE_CHECKING:
    import torch
    from gguf.constants import GGMLQuantizationType
    from torch import Tensor

    from .blocks import Decoder

PLAIN = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
CHUNK = 1 << 23  # weights decoded at a time; bounds the intermediates to about 100 MB
CPU_CHUNK = 1 << 20  # there the intermediates are to stay in the cache


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
    *,
    out: Tensor | None = None,
) -> Tensor:
    """Decode the bytes of a tensor.

    Args:
        data: uint8, one-dimensional, whole blocks.
        type_name: GGML's name of the type, such as ``Q5_K``, or safetensors' of an fp8.
        dtype: Result type; None is float32. The arithmetic is in float32 either way.
        scale: float32, one number, or one for each equal part of the weights (a row), that
            they are multiplied by before they are rounded to ``dtype``.
        out: Where to put the weights: one-dimensional, contiguous, of ``dtype``; new if None.

    Returns:
        One-dimensional tensor on ``data``'s device: ``out`` if given.
    """
    import torch

    dtype = dtype or torch.float32
    if scale is not None:
        stored = dequantise(data, type_name, _stored_type(type_name))
        return _scaled_rows(stored, scale, _or_new(out, stored.numel(), dtype, data.device))
    if type_name in PLAIN:
        plain = _stored_type(type_name)
        if data.storage_offset() % plain.itemsize:  # a writer that does not align its header
            data = data.clone()
        return data.view(plain).to(dtype) if out is None else out.copy_(data.view(plain))
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    kind = GGMLQuantizationType[type_name]
    weights, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = data.view(-1, block_bytes)
    out = _or_new(out, len(blocks) * weights, dtype, data.device)
    kernel = kernel_kind(type_name, data.device)
    if kernel is not None:
        from .kernels.expand import expand

        return expand(data, kernel, out)
    _decode(blocks, DECODERS.get(type_name) or _by_gguf_py(kind), out.view(-1, weights))
    return out


def _decode(blocks: Tensor, decode: Decoder, out: Tensor) -> None:
    """All blocks into ``out`` ``[n, weights of a block]``, a chunk at a time."""
    import torch

    chunk = min(CHUNK, CPU_CHUNK) if blocks.device.type == "cpu" else CHUNK
    step = max(1, chunk // out.shape[1])
    exact = None
    if out.dtype != torch.float32:
        rows = min(step, len(blocks))
        exact = torch.empty(rows, out.shape[1], dtype=torch.float32, device=out.device)
    for start in range(0, len(blocks), step):
        part, place = blocks[start : start + step], out[start : start + step]
        if exact is None:
            decode(part, place)
        else:
            decode(part, exact[: len(part)])
            place.copy_(exact[: len(part)])


def _or_new(out: Tensor | None, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """``out``, or new memory: on a CPU numpy's, which asks Linux for large pages.

    A matrix in small pages costs as much time to fault in as to decode.
    """
    import torch

    if out is not None:
        return out
    if device.type != "cpu" or not count:
        return torch.empty(count, dtype=dtype, device=device)
    import numpy as np

    return torch.from_numpy(np.empty(count * dtype.itemsize, np.uint8)).view(dtype)


def _stored_type(type_name: str) -> torch.dtype:
    """Torch's type of a stored one; float32 for blocks."""
    import torch

    return getattr(torch, PLAIN.get(type_name, "float32"))


def _scaled_rows(stored: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Weights times the scale of their row, multiplied in float32, a chunk at a time."""
    rows = scale.numel()
    width = max(1, stored.numel() // rows)
    step = CHUNK if rows == 1 else max(1, CHUNK // width) * width
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

    def decode(blocks: Tensor, out: Tensor) -> None:
        with np.errstate(all="ignore"):
            decoded = quants.dequantize(blocks.cpu().numpy(), kind)
        out.copy_(torch.from_numpy(decoded).view(out.shape))

    return decode
