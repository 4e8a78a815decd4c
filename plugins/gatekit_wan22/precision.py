"""Compute precisions by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import ScheduleError

if TYPE_CHECKING:
    import torch

COMPUTE_TYPES = ("fp32", "bf16", "fp16")


def check_compute(name: str) -> None:
    """Raise ScheduleError for a precision that this plugin does not compute in."""
    if name not in COMPUTE_TYPES:
        message = "not in this version" if name == "fp8" else "unknown"
        raise ScheduleError(
            f"compute precision '{name}' is {message}",
            value=name,
            remedy=f"use one of {', '.join(COMPUTE_TYPES)}",
        )


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a compute precision."""
    import torch

    check_compute(name)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
