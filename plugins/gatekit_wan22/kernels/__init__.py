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

    from .kinds import Kind

CAPABILITY = (8, 0)  # what has bf16


def kernel_kind(type_name: str, device: torch.device) -> Kind | None:
    """The kernels' description of a type; None where torch's own operations decode it."""
    if device.type == "cuda":
        return _kinds().get(type_name) if _new_enough(device) else None
    return _kinds().get(type_name) if device.type == "cpu" and _interpreted() else None


def kernels_for(device: torch.device) -> bool:
    """Whether tensors on a device can be given to Triton's kernels."""
    return device.type == "cuda" and bool(_kinds()) and _new_enough(device)


@cache
def _new_enough(device: torch.device) -> bool:
    """Whether a GPU is of the kind that the kernels are compiled for. Warns, once, if not."""
    import torch

    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        warnings.warn(
            "torch operations do what kernels would, and decode GGUF blocks many times slower: "
            f"the kernels need a GPU of compute capability {CAPABILITY[0]}.{CAPABILITY[1]} (bf16), "
            f"and {device} has {found[0]}.{found[1]}",
            RuntimeWarning,
            stacklevel=2,
        )
    return found >= CAPABILITY


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _kinds() -> dict[str, Kind]:
    """All types with kernels. Warns, once, where Triton is missing."""
    try:
        from .kinds import KINDS
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "triton":
            raise
        warnings.warn(
            "the package 'triton' is not installed: torch operations do what kernels would, and "
            "decode GGUF blocks many times slower. It comes with torch's CUDA builds for Linux",
            RuntimeWarning,
            stacklevel=2,
        )
        return {}
    return KINDS
