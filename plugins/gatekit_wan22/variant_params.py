"""Keys of a Wan variant in a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from gatekit import VariantParams

from .lora.params import LoraUse, check_names


class WanVariantParams(VariantParams):
    """Keys of a Wan variant in a schedule."""

    file: Path = Field(description="the weight file, or a folder of them")
    expert: Literal["high", "low"] | None = Field(
        None, description="which noise levels it was trained for; None for a single model"
    )
    timesteps: Literal["exact", "integer"] = Field(
        "exact", description="t = 1000 sigma as it is, or cut to an integer as Wan's own code does"
    )
    keep: Literal["auto", "always", "never"] = Field(
        "auto",
        description="hold quantised matrices decoded: auto does on a CPU where they take a quarter "
        "of free memory",
    )
    loras: tuple[LoraUse, ...] = Field((), description="LoRAs, all applied at once")
    lora_mode: Literal["auto", "merge", "side"] = Field(
        "auto",
        description="merge LoRAs into floating-point weights, or compute them beside: auto merges "
        "where no phase changes a strength and the weights are no view of the file",
    )

    @field_validator("loras")
    @classmethod
    def _named_apart(cls, loras: tuple[LoraUse, ...]) -> tuple[LoraUse, ...]:
        check_names(loras)
        return loras
