"""What a model's tensors are stored as, and what they take when loaded; from headers alone."""

from __future__ import annotations

from collections.abc import Mapping

from .fp8 import in_fp8
from .header import TensorInfo

STORAGES = {
    "F32": "fp32", "F16": "fp16", "BF16": "bf16",
    "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2",
}  # fmt: skip


def storage_name(tensors: Mapping[str, TensorInfo]) -> str:
    """Name of the type most weights are stored in; ``_scaled`` where they have scales."""
    weights: dict[str, int] = {}
    for tensor in tensors.values():
        weights[tensor.type] = weights.get(tensor.type, 0) + tensor.count
    main = max(weights, key=lambda name: weights[name])
    scaled = any(t.scale for t in tensors.values() if t.type == main)
    return STORAGES.get(main, main) + ("_scaled" if scaled else "")


def resident_in_16_bits(tensors: Mapping[str, TensorInfo], keep: str) -> int:
    """Expected memory of a model that computes in bf16 or fp16.

    What is quantised stays so, with one decoded matrix beside it; or is decoded, if kept.
    """
    if keep == "always":
        return sum(2 * t.count for t in tensors.values())
    stored = sum(t.nbytes if t.quantised else 2 * t.count for t in tensors.values())
    return stored + 2 * max((t.count for t in tensors.values() if t.quantised), default=0)


def resident_in_fp8(tensors: Mapping[str, TensorInfo]) -> int:
    """Expected memory of a model that multiplies in fp8, by official names.

    While it loads, one matrix is there in float32 too.
    """
    held = sum(t.count if in_fp8(name) else 2 * t.count for name, t in tensors.items())
    return held + 4 * max((t.count for name, t in tensors.items() if in_fp8(name)), default=0)
