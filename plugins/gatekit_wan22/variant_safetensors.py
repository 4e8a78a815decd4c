"""The variants ``safetensors`` and ``pth``: weights in fp32, fp16, bf16 or fp8."""

from __future__ import annotations

from typing import ClassVar

from .variant import WanVariant


class SafetensorsVariant(WanVariant):
    """A Wan model in safetensors files, official or diffusers names."""

    name: ClassVar[str] = "safetensors"
    file_format: ClassVar[str] = "safetensors"


class PthVariant(WanVariant):
    """A Wan model that ``torch.save`` wrote; its pickle is read as data and never run."""

    name: ClassVar[str] = "pth"
    file_format: ClassVar[str] = "pth"
