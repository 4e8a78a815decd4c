"""``gatekit inspect FILE``: what a weight file is, and what it can serve as."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatekit.cli.options import JsonOption

if TYPE_CHECKING:
    from gatekit.errors import UserError
    from gatekit.family import ModelFamily
    from gatekit.variant import ModelVariant, VariantFacts


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A weight file, or a folder.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a weight file is and how to use it."""
    from gatekit.cli.options import print_json
    from gatekit.errors import WeightsError

    if not file.exists():
        raise WeightsError("no such file", where=str(file), remedy="check the path")
    parts = parts_of(file.absolute()) or [file.absolute()]
    entries = [entry for part in parts for entry in entries_of(part, file)]
    if as_json:
        print_json(
            {
                "file": str(file),
                "size": sum({e.file: e.facts.file_bytes for e in entries}.values()),
                "opens_as": [
                    {"family": e.family, "use": e.use, "facts": asdict(e.facts), "yaml": e.yaml}
                    for e in entries
                ],
            }
        )
        return
    shown: set[Path] = set()
    ways: dict[tuple[Path, str, str], list[Entry]] = {}
    for entry in entries:
        ways.setdefault((entry.file, entry.use, entry.yaml), []).append(entry)
    for entry, *others in ways.values():
        if entry.file not in shown:
            shown.add(entry.file)
            print("\n".join([str(entry.file), *describe(entry.facts)]))
        also = f" (also {', '.join(e.family for e in others)})" if others else ""
        print(f"opens as: {entry.use} of family {entry.family}{also}")
        print(f"  {entry.yaml}")


PICTURES = (".mp4", ".png", ".webp")


@dataclass(frozen=True)
class Entry:
    """One way to use a file."""

    file: Path
    family: str
    use: str
    facts: VariantFacts
    yaml: str


def entries_of(file: Path, asked: Path) -> list[Entry]:
    """Every way to use a file; WeightsError where there is none, after what is known of it."""
    from gatekit.errors import WeightsError
    from gatekit.latent import is_latent

    # As a schedule names it: a part of a root with the root's own name before it.
    name = file.relative_to(asked.absolute().parent).as_posix()
    found, reasons = candidates(file, name)
    found = found or components(file, name)
    if found:
        return found
    if is_latent(file):
        raise WeightsError(
            "a latent that gatekit saved, no weights",
            where=str(asked),
            remedy=f"gatekit decode {asked} -o OUT.mp4 makes a video of it",
        )
    if file.suffix.lower() in PICTURES and made_here(file):
        raise WeightsError(
            "a result that gatekit made, no weights",
            where=str(asked),
            remedy=f"gatekit plan {asked} shows its schedule, gatekit run {asked} makes it again",
        )
    known = dict.fromkeys(line for family in families() for line in family.describe_file(file))
    if known:
        print("\n".join([str(file), *known]))
    raise WeightsError(
        "no installed plugin can use this file",
        where=str(asked if file == asked.absolute() else file),
        remedy=said(reasons) or "'gatekit plugins' lists what is installed",
    )


def made_here(file: Path) -> bool:
    """Whether a video or picture carries the schedule that made it."""
    from gatekit.embed import read_embedded
    from gatekit.errors import UserError

    try:
        read_embedded(file)
    except UserError:
        return False
    return True


def families() -> list[type[ModelFamily]]:
    """Every family; one that is derived from another comes after it."""
    from gatekit.registry import registry

    return sorted(registry().families.values(), key=lambda family: len(family.__mro__))


def said(reasons: Mapping[str, Sequence[str]]) -> str:
    """Each reason once; with who gives it, where there are several."""
    if len(reasons) == 1:
        return next(iter(reasons))
    return "; ".join(
        f"{', '.join(dict.fromkeys(who))}: {reason}" for reason, who in reasons.items()
    )


def parts_of(path: Path) -> list[Path]:
    """What a family finds in the root folder of its download."""
    return list(dict.fromkeys(p for family in families() for p in family.parts_of(path)))


def describe(facts: VariantFacts) -> list[str]:
    """Facts as lines."""
    from gatekit.explain import columns
    from gatekit.sizetext import size

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


def candidates(file: Path, name: str) -> tuple[list[Entry], dict[str, list[str]]]:
    """Every variant that can open a file; and why others cannot: reason -> families."""
    from gatekit.errors import UserError
    from gatekit.registry import registry

    found: list[Entry] = []
    reasons: dict[str, list[str]] = {}
    tried: dict[type[Any], tuple[ModelVariant, VariantFacts, str] | None] = {}
    for family in families():
        for use, cls in registry().variants_of(family).items():
            if cls not in tried:
                tried[cls] = None
                try:
                    variant = cls(cls.Params.model_validate({"file": str(file)}))
                    line = yaml_line(*named(variant, file, name), use, cls)
                    tried[cls] = variant, variant.facts(), line
                except (UserError, ValueError) as exc:
                    reasons.setdefault(reason(exc), []).append(cls.family)
            if (opened := tried[cls]) and family.takes_model(opened[0]):
                found.append(Entry(file, family.name, use, *opened[1:]))
    return found, reasons


def reason(exc: UserError | ValueError) -> str:
    """Why a file cannot be used and what to do, without the place."""
    from gatekit.errors import UserError

    if isinstance(exc, UserError):
        return str(type(exc)(exc.message, value=exc.value, remedy=exc.remedy))
    return str(exc).splitlines()[0]


def named(variant: ModelVariant, file: Path, name: str) -> tuple[Path, str]:
    """What a schedule names: for one of several files that are one model, their folder."""
    from gatekit.errors import UserError

    if not file.is_file() or len(variant.files()) == 1:
        return file, name
    cls = type(variant)
    try:
        cls(cls.Params.model_validate({"file": str(file.parent)})).facts()
    except UserError:  # the folder holds several models
        return file, name
    inside = Path(name).parent
    return file.parent, inside.as_posix() if inside.parts else file.parent.name


def components(file: Path, name: str) -> list[Entry]:
    """Every (family, section) that a file can serve as: a text encoder, a VAE."""
    return [
        Entry(file, family.name, section, facts, facts.yaml or f"{section}: {{file: {name}}}")
        for family in families()
        for section, facts in family.component_facts(file).items()
    ]


def yaml_line(file: Path, name: str, use: str, cls: type[Any]) -> str:
    """How a schedule names the file."""
    keys = {"use": use, **cls.suggested(file), "file": name}
    key = re.sub(r"[^A-Za-z0-9_]+", "-", file.stem if file.is_file() else file.name)
    return f"variants: {{{key}: {{{', '.join(f'{k}: {v}' for k, v in keys.items())}}}}}"
