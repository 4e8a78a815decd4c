"""GGUF blocks on a GPU, in Triton: dequantised at memory speed, or multiplied as they are read.

Triton comes with torch's CUDA builds. It is imported only where blocks lie on a GPU; with
``TRITON_INTERPRET=1`` its interpreter runs the kernels on the CPU, for tests.
"""

from __future__ import annotations

import os
import warnings
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from .decoders import Kind


def kernel_kind(type_name: str, device: torch.device) -> Kind | None:
    """The kernels' description of a type; None where torch's own operations decode it."""
    if device.type != "cuda" and not (device.type == "cpu" and _interpreted()):
        return None
    return _kinds().get(type_name)


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _kinds() -> dict[str, Kind]:
    """All types with kernels. Warns, once, where Triton is missing."""
    try:
        from .decoders import KINDS
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "triton":
            raise
        warnings.warn(
            "the package 'triton' is not installed: GGUF blocks are decoded by torch operations, "
            "many times slower. It comes with torch's CUDA builds for Linux",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return KINDS
