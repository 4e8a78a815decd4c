"""What ``gatekit inspect`` says of a LoRA."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from gatekit import VariantFacts, WeightsError

from ..header import printable, read_header
from .file import LoraFile, has_both, read_lora
from .fit import Meant, meant
from .scale import alpha_of, noted

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


def lora_facts(path: Path) -> VariantFacts | None:
    """Facts of a LoRA for a Wan transformer; None for another file. Alpha's values are read."""
    try:
        both = has_both(read_header(path))
        lora = read_lora(path, "high" if both else None)
    except WeightsError:
        return None
    if not lora.changes:
        return None
    header = lora.header
    details = {
        "LoRA": str(lora),
        "for": str(meant(lora)),
        "alpha": alpha_line(lora),
        "layers": layers_line(lora),
    }
    if both:
        details["parts"] = "transformer (expert high, described here), transformer_2 (expert low)"
    name = json.dumps(path.name) if re.search(r"[^\w.+-]", path.name) else path.name
    warnings = (f"{len(lora.unmatched)} keys match nothing in a Wan transformer: "
                f"{', '.join(map(printable, lora.unmatched[:3]))}",)  # fmt: skip
    return VariantFacts(
        storage=max(header.types, key=lambda kind: header.types[kind]),
        file_bytes=header.file_bytes,
        parameters=header.parameters,
        bits_per_weight=8.0 * header.tensor_bytes / header.parameters,
        resident_bytes=2 * header.parameters,
        types=header.types,
        details=details,
        warnings=warnings if lora.unmatched else (),
        yaml=f"loras: [{{file: {name}, strength: 1.0, name: style}}]  # in a variant\n"
        "  adjust: {loras: {style: 0.5}}  # in a phase, where the strength is another there",
    )


def meant_by(path: Path) -> Meant:
    """The model that a LoRA's file is for, as far as its shapes tell."""
    return meant(read_lora(path, "high" if has_both(read_header(path)) else None))


def alpha_line(lora: LoraFile) -> str:
    """Alpha, and what that multiplies the product of the pairs by."""
    from ..mapped import MappedFile

    mapped, (kept, root) = MappedFile(lora.header), noted(lora)
    found: dict[str, int] = defaultdict(int)
    for change in lora.changes.values():
        if not change.rank:
            continue
        alpha = alpha_of(mapped, change)
        if alpha is not None:
            info = change.alpha
            kind = info.type if info is not None else ""
            found[f"{alpha:g} ({kind}) at rank {change.rank}: x {alpha / change.rank:g}"] += 1
        elif kept is not None:
            divisor = change.rank ** (0.5 if root else 1.0)
            found[f"{kept:g} (noted) at rank {change.rank}: x {kept / divisor:g}"] += 1
        else:
            found[f"none, taken as the rank {change.rank}: x 1"] += 1
    return ", ".join(f"{text} ({n} layers)" for text, n in found.items()) or "none needed"


def layers_line(lora: LoraFile) -> str:
    """Which layers, those of blocks told once with the blocks that have them."""
    blocks: dict[str, list[int]] = defaultdict(list)
    outside: list[str] = []
    for module in lora.changes:
        if found := _BLOCK.fullmatch(module):
            blocks[found[2]].append(int(found[1]))
        else:
            outside.append(module)
    by_range: dict[str, list[str]] = defaultdict(list)
    for inner, numbers in blocks.items():
        by_range[_ranges(numbers)].append(inner)
    lines = [f"{', '.join(sorted(inner))} of blocks {where}" for where, inner in by_range.items()]
    return "; ".join([*lines, *sorted(outside)])


def _ranges(numbers: Iterable[int]) -> str:
    """``0-3, 7``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if b > a else str(a) for a, b in runs)
