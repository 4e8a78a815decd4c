"""The variant ``safetensors``: weights in fp32, fp16, bf16 or fp8, official or diffusers names."""

from __future__ import annotations

from typing import ClassVar

from .header import Header
from .variant import WanVariant

_NAMES = {
    "F32": "fp32", "F16": "fp16", "BF16": "bf16",
    "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2",
}  # fmt: skip


class SafetensorsVariant(WanVariant):
    """A Wan model in one safetensors file."""

    name: ClassVar[str] = "safetensors"
    file_format: ClassVar[str] = "safetensors"

    def storage(self, header: Header) -> str:
        """``fp32``, ``fp16``, ``bf16``, ``fp8_e4m3fn``, ``fp8_e5m2``; ``_scaled`` with scales."""
        main = super().storage(header)
        scaled = any(t.scale for t in header.tensors.values() if t.type == main)
        return _NAMES.get(main, main) + ("_scaled" if scaled else "")
