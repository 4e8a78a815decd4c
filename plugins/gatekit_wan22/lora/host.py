"""The LoRAs of one variant: planned from headers, attached when it loads."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .file import LoraFile, read_lora
from .fit import check_fit
from .params import LoraUse
from .scale import CONFIG, noted

if TYPE_CHECKING:
    from ..sizes import TransformerSizes
    from .attach import Attached, Target
    from .file import Change

# "high" as a word of the name, or run together with "noise"; "highres" says nothing.
NAMED = {e: re.compile(rf"(?<![a-z]){e}(?![a-z])|{e}noise") for e in ("high", "low")}


def named_otherwise(text: str, expert: str | None) -> str | None:
    """The other expert, where a name or a title says that something is that one's."""
    name, other = text.lower(), {"high": "low", "low": "high"}.get(expert or "")
    if other and NAMED[other].search(name) and not NAMED[str(expert)].search(name):
        return other
    return None


class VariantLoras:
    """Headers of a variant's LoRAs, each read and checked once.

    Args:
        uses: As the schedule has them.
        expert: The variant's.
    """

    def __init__(self, uses: Sequence[LoraUse], expert: str | None) -> None:
        self.uses, self.expert = tuple(uses), expert
        self._files: tuple[LoraFile, ...] | None = None

    def paths(self) -> tuple[Path, ...]:
        """Every file whose bytes count: the LoRAs, and PEFT's configuration beside one."""
        beside = [u.file.with_name(CONFIG) for u in self.uses if u.file.stem == "adapter_model"]
        return (*(u.file for u in self.uses), *(b for b in beside if b.is_file()))

    def files(self) -> tuple[LoraFile, ...]:
        """The LoRAs, from their headers. Raises WeightsError."""
        if self._files is None:
            self._files = tuple(read_lora(use.file, self.expert) for use in self.uses)
        return self._files

    def fitted(self, sizes: TransformerSizes) -> list[tuple[LoraFile, dict[str, Change]]]:
        """Each file with the changes that apply to a model. Raises WeightsError."""
        found: list[tuple[LoraFile, dict[str, Change]]] = []
        for use, lora in zip(self.uses, self.files(), strict=True):
            noted(lora)
            found.append((lora, check_fit(lora, sizes, skip=use.unmatched == "skip")))
        return found

    def details(self) -> dict[str, str]:
        """One line for people."""
        lines = [
            f"{use.called} ({lora}, strength {use.strength:g})"
            for use, lora in zip(self.uses, self.files(), strict=True)
        ]
        return {"loras": "; ".join(lines)} if lines else {}

    def warnings(self, sizes: TransformerSizes) -> list[str]:
        """Keys left out, and names that tell of the other expert."""
        found: list[str] = []
        for use, (lora, changes) in zip(self.uses, self.fitted(sizes), strict=True):
            left = len(lora.header.tensors) - sum(entries(c) for c in changes.values())
            if use.unmatched == "skip" and left:
                found.append(f"{use.file.name}: {left} keys match nothing and are left out")
            if other := named_otherwise(use.file.name, self.expert):
                found.append(
                    f"{use.file.name} is named a {other}-noise LoRA, but 'expert' is {self.expert}"
                )
        return found

    def resident_bytes(self) -> int:
        """Expected memory beside the model, in 16-bit arithmetic."""
        return sum(2 * lora.header.parameters for lora in self.files())

    def attach(self, target: Target, sizes: TransformerSizes, mode: str, fixed: bool) -> Attached:
        """Put the LoRAs on a model, with strengths of 0.

        Args:
            target: The loaded model.
            sizes: Its sizes.
            mode: ``lora_mode``: ``auto``, ``merge`` or ``side``.
            fixed: Whether all phases use the same strengths.
        """
        from .attach import Attached

        merge = {"merge": "yes", "side": "no"}.get(mode, "own" if fixed else "no")
        return Attached(target, self.fitted(sizes), merge)


def entries(change: Change) -> int:
    """Number of tensors of a change."""
    parts: tuple[Any, ...] = (
        *(change.down, change.up, change.alpha, change.up_bias),
        *(change.diff, change.diff_b),
    )
    return sum(part is not None for part in parts)


def strengths(uses: Sequence[LoraUse]) -> tuple[float, ...]:
    """The strength of each LoRA."""
    return tuple(use.strength for use in uses)
