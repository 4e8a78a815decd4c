"""A phase of a schedule as a plan has it: everything that it names made, and its field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.boundaries import placed
from gatekit.device import kind_of
from gatekit.errors import ScheduleError
from gatekit.filefields import without_files
from gatekit.identity import field_of
from gatekit.path import as_path
from gatekit.plan import PlannedPhase
from gatekit.planvariants import adjusted

if TYPE_CHECKING:
    from gatekit.family import ModelFamily
    from gatekit.schedule import PhaseEntry
    from gatekit.sections import Sections
    from gatekit.stepcache import StepCache
    from gatekit.variant import ModelVariant
    from gatekit.yamlsource import KeyPath


def planned_phase(
    sections: Sections,
    index: int,
    phase: PhaseEntry,
    sigmas: tuple[float, ...],
    whole: tuple[float, ...],
    boundary: Any,
    variants: Mapping[str, ModelVariant],
    family: ModelFamily,
    device: str,
) -> PlannedPhase:
    """A phase with its sampler, strategy, guidance, history and cache.

    Args:
        sections: Makes what the phase names.
        index: Place of the phase in the schedule.
        phase: The phase of the schedule.
        sigmas: Its sigmas.
        whole: Those that it has without a ``start``.
        boundary: How it ends.
        variants: The plan's variants.
        family: The plan's family.
        device: Where the run computes.
    """
    at: KeyPath = ("phases", index)
    guidance = sections.made("guidance", phase.guidance, (*at, "guidance"))
    cache = _cache(sections, phase, variants[phase.variant], (*at, "cache"))
    if cache is not None:
        most = as_path(family.path).sigma_max
        placed(sections.schedule, (*at, "cache"), lambda: cache.check(whole, most))
    default = family.default_compute.get(kind_of(device), "fp32")
    compute = phase.compute or default
    variant = variants[phase.variant]
    files = [f for f in variant.files() if f.exists()]
    params = adjusted(sections, variant, phase, (*at, "adjust"))
    field_name = field_of(
        f"{variant.family}/{variant.name}",
        without_files(params.model_dump(mode="json"), variant.file_fields),
        files or [Path(f.name) for f in variant.files()],
        compute,
        {"use": guidance.name, **guidance.params.model_dump(mode="json")},
        {"use": cache.name, **cache.params.model_dump(mode="json")} if cache else None,
    )
    sampler = sections.made("sampler", phase.sampler, (*at, "sampler"))
    if sampler.integrate is not None and phase.strategy.use != "grid":
        raise ScheduleError(
            f"sampler {sampler.name!r} goes through the phase by itself and asks no strategy",
            where=sections.source.where((*at, "strategy")),
            value=phase.strategy.use,
            remedy="take 'strategy' out, or use another sampler",
        )
    return PlannedPhase(
        name=phase.name,
        variant=phase.variant,
        sampler=sampler,
        strategy=sections.made("strategy", phase.strategy, (*at, "strategy"), sigmas),
        guidance=guidance,
        history=sections.made("history", phase.history, (*at, "history")),
        compute=compute,
        sigmas=sigmas,
        field=field_name,
        boundary=boundary,
        params=params,
        cache=cache,
    )


def _cache(
    sections: Sections, phase: PhaseEntry, variant: ModelVariant, at: KeyPath
) -> StepCache | None:
    """The phase's step cache; None for one that is off."""
    made: StepCache = sections.made("cache", phase.cache, at)
    if made.off:
        return None
    if not variant.in_blocks:
        raise ScheduleError(
            f"variant {phase.variant!r} cannot be cached: it does not show its blocks",
            where=sections.source.where(at),
            value=phase.cache.use,
            remedy="take 'cache' out of this phase",
        )
    return made
