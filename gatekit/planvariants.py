"""The variants of a plan: made, with a phase's own parameters, their headers read and checked."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gatekit.boundaries import placed
from gatekit.errors import ScheduleError, UserError
from gatekit.filefields import place_files
from gatekit.registry import registry
from gatekit.sections import relocated
from gatekit.validate import validated

if TYPE_CHECKING:
    from gatekit.family import ModelFamily
    from gatekit.lookup import Finder
    from gatekit.params import VariantParams
    from gatekit.plan import PlannedPhase
    from gatekit.schedule import PhaseEntry, Use
    from gatekit.sections import Sections
    from gatekit.variant import ModelVariant, VariantFacts
    from gatekit.yamlsource import KeyPath


def made_variant(
    sections: Sections, family: type[ModelFamily], key: str, use: Use, files: Finder
) -> ModelVariant:
    """A variant with its files found; nothing of it is read."""
    at: KeyPath = ("variants", key)
    cls = registry().variant(family, use.use, where=sections.source.where((*at, "use")))
    data = copy.deepcopy(use.params)
    place_files(data, cls.file_fields, lambda name, key: sections.found(name, (*at, *key), files))
    return cls(validated(cls.Params, data, sections.source, at, ("use",)))


def adjusted(
    sections: Sections, variant: ModelVariant, phase: PhaseEntry, at: KeyPath
) -> VariantParams:
    """The variant's parameters in a phase."""
    if not phase.adjust:
        return variant.params
    source = sections.source
    if not variant.Adjust.model_fields:
        raise ScheduleError(
            f"variant {phase.variant!r} has nothing that a phase can change",
            where=source.where(at, key=True),
            remedy="take 'adjust' out, or use a variant of its own for this phase",
        )
    adjust = validated(variant.Adjust, phase.adjust, source, at)
    return placed(sections.schedule, at, lambda: variant.adjusted(adjust))


def facts_of(sections: Sections, variants: Mapping[str, ModelVariant]) -> dict[str, VariantFacts]:
    """What the headers say, by variant; of those whose files are there."""
    facts: dict[str, VariantFacts] = {}
    used = {phase.variant for phase in sections.schedule.phases}
    for key, variant in variants.items():
        at = sections.source.where(("variants", key))
        if key not in used:
            sections.warnings.append(f"{at}: no phase uses this variant")
        if any(not path.exists() for path in variant.files()):
            continue
        try:
            facts[key] = variant.facts()
        except UserError as exc:
            raise relocated(exc, at) from exc
        sections.warnings += [f"{at}: {warning}" for warning in facts[key].warnings]
    return facts


def check_variants(
    sections: Sections,
    family: ModelFamily,
    variants: Mapping[str, ModelVariant],
    phases: Sequence[PlannedPhase],
    facts: Mapping[str, VariantFacts],
) -> None:
    """Let the family check each phase's model, if its files are there."""
    for i, phase in enumerate(phases):
        if phase.variant not in facts:
            continue
        try:
            family.check_variant(variants[phase.variant], phase.compute)
        except ScheduleError as exc:
            at: KeyPath = ("phases", i, "compute")
            raise relocated(exc, sections.source.where(at)) from exc
        except UserError as exc:
            at = ("variants", phase.variant)
            raise relocated(exc, sections.source.where(at)) from exc
