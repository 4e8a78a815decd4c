"""``gatekit inspect FILE``: what a weight file is, and what it can serve as."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatekit.cli.options import Json

if TYPE_CHECKING:
    from gatekit.variant import VariantFacts


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A weight file.")],
    as_json: Json = False,
) -> None:
    """Show what a weight file is and how to use it."""
    from gatekit.cli.options import print_json
    from gatekit.errors import WeightsError

    if not file.exists():
        raise WeightsError("no such file", where=str(file), remedy="check the path")
    found, reasons = candidates(file.absolute())
    found += components(file.absolute())
    if not found:
        raise WeightsError(
            "no installed plugin can use this file",
            where=str(file),
            remedy="; ".join(reasons) or "'gatekit plugins' lists what is installed",
        )
    if as_json:
        entries = [
            {"family": family, "use": use, "facts": asdict(facts), "yaml": line}
            for family, use, facts, line in found
        ]
        print_json({"file": str(file), "size": file.stat().st_size, "opens_as": entries})
        return
    for i, (family, use, facts, line) in enumerate(found):
        if i == 0:
            print("\n".join([str(file), *describe(facts)]))
        print(f"opens as: {use} of family {family}")
        print(f"  {line}")


def describe(facts: VariantFacts) -> list[str]:
    """Facts as lines."""
    from gatekit.explain import columns, size

    lines = [
        f"storage: {facts.storage}, {facts.bits_per_weight:.2f} bits a weight",
        f"size: {size(facts.file_bytes)} on disk, about {size(facts.resident_bytes)} when loaded",
        f"weights: {facts.parameters:,}",
        *(f"{name}: {value}" for name, value in facts.details.items()),
        "tensors:",
    ]
    ordered = sorted(facts.types.items(), key=lambda item: -item[1])
    if ordered:
        rows = columns([(name, str(count)) for name, count in ordered], right=(1,))
        lines += [f"  {row}" for row in rows]
    return lines + [f"warning: {warning}" for warning in facts.warnings]


def candidates(file: Path) -> tuple[list[tuple[str, str, VariantFacts, str]], list[str]]:
    """Every (family, variant) that can open a file, with its facts and a line of YAML.

    The second list says why each of the others cannot.
    """
    from gatekit.errors import UserError
    from gatekit.registry import registry

    found: list[tuple[str, str, VariantFacts, str]] = []
    reasons: dict[str, None] = {}
    facts_of: dict[type[Any], VariantFacts] = {}
    for family in registry().families.values():
        for use, cls in registry().variants_of(family).items():
            try:
                if cls not in facts_of:
                    facts_of[cls] = cls(cls.Params.model_validate({"file": str(file)})).facts()
            except (UserError, ValueError) as exc:
                text = exc.message if isinstance(exc, UserError) else str(exc).splitlines()[0]
                reasons[f"{cls.family} {use}: {text}"] = None
                continue
            found.append((family.name, use, facts_of[cls], yaml_line(file, use, cls)))
    return found, list(reasons)


def components(file: Path) -> list[tuple[str, str, VariantFacts, str]]:
    """Every (family, section) that a file can serve as: a text encoder, a VAE."""
    from gatekit.registry import registry

    return [
        (family.name, section, facts, facts.yaml or f"{section}: {{file: {file.name}}}")
        for family in registry().families.values()
        for section, facts in family.component_facts(file).items()
    ]


def yaml_line(file: Path, use: str, cls: type[Any]) -> str:
    """How a schedule names the file."""
    expert = ""
    if "expert" in cls.Params.model_fields:
        name = file.name.lower()
        expert = next((f"expert: {side}, " for side in ("high", "low") if side in name), "")
    return f"variants: {{{file.stem.split('.')[0]}: {{use: {use}, {expert}file: {file.name}}}}}"
