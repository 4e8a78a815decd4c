"""Compute precisions by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import ScheduleError

if TYPE_CHECKING:
    import torch

TYPES = ("fp32", "bf16", "fp16")  # of tensors
COMPUTE_TYPES = (*TYPES, "fp8")  # of a transformer: fp8 multiplies so, and is bf16 besides


def check_compute(name: str, known: tuple[str, ...] = COMPUTE_TYPES) -> None:
    """Raise ScheduleError for a precision that this plugin does not compute in."""
    if name not in known:
        raise ScheduleError(
            f"compute precision '{name}' is unknown",
            value=name,
            remedy=f"use one of {', '.join(known)}",
        )


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of a precision; ScheduleError for fp8, which no tensor is wholly in."""
    import torch

    check_compute(name, TYPES)
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def model_dtype(compute: str) -> torch.dtype:
    """The type of what a transformer does not multiply in fp8."""
    check_compute(compute)
    return torch_dtype("bf16" if compute == "fp8" else compute)
