"""The variant ``safetensors``: weights in fp32, fp16 or bf16, official or diffusers names."""

from __future__ import annotations

from typing import ClassVar

from gatekit import WeightsError

from .header import FLOAT_TYPES, Header
from .variant import WanVariant

_NAMES = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


class SafetensorsVariant(WanVariant):
    """A Wan model in one safetensors file."""

    name: ClassVar[str] = "safetensors"
    file_format: ClassVar[str] = "safetensors"

    def _check_types(self, header: Header) -> None:
        for tensor in header.tensors.values():
            if tensor.type not in FLOAT_TYPES:
                raise WeightsError(
                    f"'{tensor.name}' is {tensor.type}",
                    where=str(header.path),
                    remedy="this version reads fp32, fp16 and bf16, and quantised GGUF files",
                )

    def storage(self, header: Header) -> str:
        """``fp32``, ``fp16`` or ``bf16``."""
        main = super().storage(header)
        return _NAMES.get(main, main)
