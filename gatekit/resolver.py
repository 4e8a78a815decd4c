"""Resolver: from a schedule to a plan, one section of the file after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit.boundaries import slices
from gatekit.components import check_components, made_family, video_of
from gatekit.device import check_name, default_device
from gatekit.errors import InputError
from gatekit.executions import executed
from gatekit.lookup import finder, missing_error
from gatekit.memoryplan import check_memory
from gatekit.path import as_path
from gatekit.plan import Plan
from gatekit.planphases import planned_phase
from gatekit.planvariants import check_variants, facts_of, made_variant
from gatekit.sections import Sections
from gatekit.start import cut

if TYPE_CHECKING:
    from gatekit.schedule import Schedule


def resolve(
    schedule: Schedule,
    *,
    models_dir: str | Path | Sequence[str | Path] | None = None,
    device: str | None = None,
    require_files: bool = False,
) -> Plan:
    """Look up every name, place every sigma and find every file; load no weights.

    Args:
        schedule: From ``load_schedule``.
        models_dir: Folder or folders of weight files, searched after the schedule's own.
        device: Overrides the schedule's ``device``: ``cpu``, ``cuda``, ``cuda:1``.
        require_files: Raise where a file is missing, instead of listing it in the plan.

    Raises:
        ScheduleError: A parameter, a size or a boundary that cannot be.
        PluginError: An unknown name.
        WeightsError: A weight file of another kind, or (``require_files``) a missing one.
    """
    if not hasattr(schedule, "source"):
        raise InputError(
            "a plan is made from a schedule",
            value=schedule,
            remedy="give what gatekit.load_schedule returns",
        )
    sections = Sections(schedule)
    place = "device" if device else schedule.source.where(("device",))
    device = device or schedule.device or default_device()
    check_name(device, place)
    family_cls = sections.class_of("family", schedule.family, ("family",))
    files = finder(schedule.folder, models_dir, family_cls.model_dirs())
    family = made_family(sections, family_cls, files)
    video = video_of(sections, family)
    grid = sections.grid(schedule.sigmas, ("sigmas",))
    own = [
        sections.grid(p.sigmas, ("phases", i, "sigmas")) if p.sigmas else None
        for i, p in enumerate(schedule.phases)
    ]
    whole = slices(schedule, grid, own, as_path(family.path))
    parts, start = cut(schedule, whole, as_path(family.path))
    variants = {
        key: made_variant(sections, family_cls, key, use, files)
        for key, use in schedule.variants.items()
    }
    # Phases that the start skips are planned too: what is wrong with them is said.
    planned = tuple(
        planned_phase(
            sections,
            i,
            phase,
            sigmas or whole.sigmas[i],
            whole.sigmas[i],
            parts.boundaries[i],
            variants,
            family,
            device,
        )
        for i, (phase, sigmas) in enumerate(zip(schedule.phases, parts.sigmas, strict=True))
    )
    phases = tuple(p for p, sigmas in zip(planned, parts.sigmas, strict=True) if sigmas)
    for key, variant in variants.items():
        variant.phases = tuple(p.params for p in planned if p.variant == key)
    phases = tuple(replace(p, strategy=p.strategy.within(parts.run)) for p in phases)
    facts = facts_of(sections, variants)
    check_components(sections, family)
    check_variants(sections, family, variants, planned, facts)
    served = {p.name: (p.params, p.sigmas) for p in planned}
    sections.warnings += [f"{schedule.source.file}: {w}" for w in family.phase_warnings(served)]
    if require_files and sections.missing:
        raise missing_error(sections.missing)
    plan = Plan(
        schedule=schedule,
        family=family,
        video=video,
        variants=variants,
        phases=phases,
        run_sigmas=parts.run,
        device=device,
        missing=tuple(sections.missing),
        warnings=tuple(sections.warnings),
        facts=facts,
        start=start,
    )
    plan = executed(plan, planned)
    check_memory(plan)
    return plan
