"""What schedules say of LoRAs: ``variants.*.loras`` and ``phases[].adjust.loras``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from gatekit import AdjustParams, Params, ScheduleError

Strength = Annotated[float, Field(ge=-100, le=100)]


class LoraUse(Params):
    """One LoRA of a variant."""

    file: Path = Field(description="the LoRA, .safetensors")
    strength: Strength = Field(1.0, description="what the change is multiplied by; 0 is none")
    name: str | None = Field(
        None, description="what phases call it in adjust.loras; default: the file's name, no suffix"
    )
    unmatched: Literal["error", "skip"] = Field(
        "error", description="what to do with keys that match nothing in the model"
    )

    @property
    def called(self) -> str:
        """The name by which phases know it."""
        return self.name or self.file.stem


class WanAdjust(AdjustParams):
    """What a phase may change in a Wan variant: strengths of its LoRAs, by name."""

    loras: dict[str, Strength] = Field(
        default_factory=dict, description="name of a LoRA -> its strength in this phase"
    )


def check_names(loras: Sequence[LoraUse]) -> None:
    """Raise ValueError where two LoRAs have one name."""
    names = [lora.called for lora in loras]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"two LoRAs are called '{twice[0]}': give one a 'name'")


def with_strengths(loras: Sequence[LoraUse], strengths: Mapping[str, float]) -> tuple[LoraUse, ...]:
    """The LoRAs with the strengths of a phase; ScheduleError for a name that none has."""
    known = [lora.called for lora in loras]
    for name in strengths:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            has = f"did you mean '{close[0]}'?" if close else f"it has {', '.join(known)}"
            raise ScheduleError(
                f"the variant has no LoRA '{name}'",
                remedy=has if known else "give it 'loras' first",
                key=("loras", name),
            )
    return tuple(
        lora.model_copy(update={"strength": strengths.get(lora.called, lora.strength)})
        for lora in loras
    )
