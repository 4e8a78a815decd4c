"""Resolver: from a schedule to a plan, one section of the file after the other."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gatekit.boundaries import placed, slices
from gatekit.device import check_name, default_device, kind_of
from gatekit.errors import GatekitError, InputError, ScheduleError, UserError
from gatekit.executions import executed
from gatekit.family import Components, ComponentSpec, ModelFamily, VideoSpec
from gatekit.filefields import place_files, without_files
from gatekit.identity import field_of
from gatekit.lookup import Finder, MissingFile, check_file_name, finder, missing_error
from gatekit.memoryplan import check_memory
from gatekit.path import as_path
from gatekit.plan import Plan, PlannedPhase
from gatekit.registry import registry
from gatekit.schedule import VAE
from gatekit.start import cut
from gatekit.validate import validated

if TYPE_CHECKING:
    from gatekit.params import VariantParams
    from gatekit.schedule import Component, PhaseEntry, Schedule, Use
    from gatekit.sigmas import SigmaGrid
    from gatekit.stepcache import StepCache
    from gatekit.variant import ModelVariant, VariantFacts
    from gatekit.yamlsource import KeyPath


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
    plan = _Resolver(schedule, models_dir, device).plan(require_files)
    check_memory(plan)
    return plan


@dataclass
class _Resolver:
    """Collects what a plan needs; ``missing`` and ``warnings`` grow on the way."""

    schedule: Schedule
    models_dir: str | Path | Sequence[str | Path] | None = None
    device: str | None = None
    missing: list[MissingFile] = field(default_factory=list[MissingFile])
    warnings: list[str] = field(default_factory=list[str])

    def plan(self, require_files: bool = False) -> Plan:
        """The plan. Raises ScheduleError, PluginError or WeightsError."""
        schedule = self.schedule
        device = self.device or schedule.device or default_device()
        place = "device" if self.device else schedule.source.where(("device",))
        check_name(device, place)
        family_cls = self._class("family", schedule.family, ("family",))
        files = finder(schedule.folder, self.models_dir, family_cls.model_dirs())
        family = self._family(family_cls, files)
        video = self._video(family)
        grid = self._grid(schedule.sigmas, ("sigmas",))
        own = [
            self._grid(p.sigmas, ("phases", i, "sigmas")) if p.sigmas else None
            for i, p in enumerate(schedule.phases)
        ]
        whole = slices(schedule, grid, own, as_path(family.path))
        parts, start = cut(schedule, whole, as_path(family.path))
        variants = {
            key: self._variant(family_cls, key, use, files)
            for key, use in schedule.variants.items()
        }
        # Phases that the start skips are planned too: what is wrong with them is said.
        planned = tuple(
            self._phase(
                i, phase, sigmas or whole.sigmas[i], parts.boundaries[i], variants, family, device
            )
            for i, (phase, sigmas) in enumerate(zip(schedule.phases, parts.sigmas, strict=True))
        )
        phases = tuple(p for p, sigmas in zip(planned, parts.sigmas, strict=True) if sigmas)
        for key, variant in variants.items():
            variant.phases = tuple(p.params for p in planned if p.variant == key)
        phases = tuple(replace(p, strategy=p.strategy.within(parts.run)) for p in phases)
        facts = self._facts(variants)
        self._check_components(family)
        self._check_variants(family, variants, planned, facts)
        served = {p.name: (p.params, p.sigmas) for p in planned}
        self.warnings += [f"{schedule.source.file}: {w}" for w in family.phase_warnings(served)]
        if require_files and self.missing:
            raise missing_error(self.missing)
        plan = Plan(
            schedule=schedule,
            family=family,
            video=video,
            variants=variants,
            phases=phases,
            run_sigmas=parts.run,
            device=device,
            missing=tuple(self.missing),
            warnings=tuple(self.warnings),
            facts=facts,
            start=start,
        )
        return executed(plan, planned)

    def _class(self, kind: str, use: Use, at: KeyPath) -> type[Any]:
        source = self.schedule.source
        where = source.where((*at, "use") if (*at, "use") in source.values else at)
        return registry().get(kind, use.use, where=where)

    def _made(self, kind: str, use: Use, at: KeyPath, *args: Any) -> Any:
        """An instance of a plugin's class with its parameters validated."""
        cls = self._class(kind, use, at)
        self._check_default(kind, cls, use, at)
        return cls(*args, self._params(cls, use, at))

    def _check_default(self, kind: str, cls: type[Any], use: Use, at: KeyPath) -> None:
        """Say that ``use`` is missing where a parameter is of a plugin that is not the default."""
        source = self.schedule.source
        if (*at, "use") in source.values:
            return
        for key in use.params:
            having = [n for n, c in registry().table(kind).items() if key in c.Params.model_fields]
            if having and cls.name not in having:
                raise ScheduleError(
                    f"unknown key {key!r}",
                    where=source.where((*at, key), key=True),
                    remedy=f"add 'use', such as use: {min(having, key=len)}",
                )

    def _params(self, cls: type[Any], use: Use, at: KeyPath, extra: Sequence[str] = ()) -> Any:
        return validated(cls.Params, use.params, self.schedule.source, at, ("use", *extra))

    def _grid(self, use: Use, at: KeyPath) -> SigmaGrid:
        cls = self._class("grid", use, at)
        extra = ("steps", "allot") if at == ("sigmas",) else ()
        return cast("SigmaGrid", cls(self._params(cls, use, at, extra)))

    def _family(self, cls: type[ModelFamily], files: Finder) -> ModelFamily:
        params = self._params(cls, self.schedule.family, ("family",))
        given = {"text_encoder": self.schedule.text_encoder, "vae": self.schedule.vae}
        for section in cls.required:
            if given.get(section) is None:
                raise ScheduleError(
                    f"family {cls.name!r} needs the section {section!r}",
                    where=self.schedule.source.where((section,)),
                    remedy=f"add '{section}: {{file: ...}}'",
                )
        specs = {
            section: self._component(section, component, files)
            for section, component in given.items()
            if component is not None
        }
        return cls(params, Components(**specs))

    def _component(self, section: str, component: Component, files: Finder) -> ComponentSpec:
        if component.device is not None:
            check_name(component.device, self.schedule.source.where((section, "device")))
        return ComponentSpec(
            file=self._found(component.file, (section, "file"), files),
            precision=component.precision,
            device=component.device,
            tokenizer=self._found(component.tokenizer, (section, "tokenizer"), files)
            if component.tokenizer
            else None,
            tile=component.tile if isinstance(component, VAE) else "auto",
        )

    def _check_components(self, family: ModelFamily) -> None:
        """Let the family check the header of each component whose file is there."""
        for section, part in family.components.given().items():
            if part.file is None:
                continue
            try:
                family.check_component(section)
            except UserError as exc:
                key = exc.key if isinstance(exc, ScheduleError) and exc.key else ("file",)
                raise relocated(exc, self.schedule.source.where((section, *key))) from exc

    def _check_variants(
        self,
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
                raise relocated(exc, self.schedule.source.where(at)) from exc
            except UserError as exc:
                at = ("variants", phase.variant)
                raise relocated(exc, self.schedule.source.where(at)) from exc

    def _found(self, name: str, at: KeyPath, files: Finder) -> Path | None:
        source = self.schedule.source
        check_file_name(name, source.where(at))
        if source.in_file(at) and not self.schedule.outside:
            files.check_inside(name, source.where(at))
        path = files.find(name)
        if path is None:
            self.missing.append(files.missing(name, self.schedule.source.where(at)))
        return path

    def _video(self, family: ModelFamily) -> VideoSpec:
        asked = self.schedule.video.model_dump(exclude_none=True)
        values = dict(family.default_video()) | asked
        for name in ("width", "height", "frames", "fps"):
            if name not in values:
                raise ScheduleError(
                    "the size of the video is missing",
                    where=self.schedule.source.where(("video", name)),
                    remedy=f"add {name!r} there",
                )
        video = VideoSpec(
            int(values["width"]), int(values["height"]), int(values["frames"]), values["fps"]
        )
        placed(self.schedule, ("video",), lambda: family.check_video(video))
        return video

    def _variant(
        self, family: type[ModelFamily], key: str, use: Use, files: Finder
    ) -> ModelVariant:
        at: KeyPath = ("variants", key)
        cls = registry().variant(family, use.use, where=self.schedule.source.where((*at, "use")))
        data = copy.deepcopy(use.params)
        place_files(data, cls.file_fields, lambda name, key: self._found(name, (*at, *key), files))
        return cls(validated(cls.Params, data, self.schedule.source, at, ("use",)))

    def _adjusted(self, variant: ModelVariant, phase: PhaseEntry, at: KeyPath) -> VariantParams:
        """The variant's parameters in a phase."""
        if not phase.adjust:
            return variant.params
        source = self.schedule.source
        if not variant.Adjust.model_fields:
            raise ScheduleError(
                f"variant {phase.variant!r} has nothing that a phase can change",
                where=source.where(at, key=True),
                remedy="take 'adjust' out, or use a variant of its own for this phase",
            )
        adjust = validated(variant.Adjust, phase.adjust, source, at)
        return placed(self.schedule, at, lambda: variant.adjusted(adjust))

    def _phase(
        self,
        index: int,
        phase: PhaseEntry,
        sigmas: tuple[float, ...],
        boundary: Any,
        variants: Mapping[str, ModelVariant],
        family: ModelFamily,
        device: str,
    ) -> PlannedPhase:
        at: KeyPath = ("phases", index)
        guidance = self._made("guidance", phase.guidance, (*at, "guidance"))
        cache = self._cache(phase, variants[phase.variant], (*at, "cache"))
        default = family.default_compute.get(kind_of(device), "fp32")
        compute = phase.compute or default
        variant = variants[phase.variant]
        files = [f for f in variant.files() if f.exists()]
        params = self._adjusted(variant, phase, (*at, "adjust"))
        field_name = field_of(
            f"{variant.family}/{variant.name}",
            without_files(params.model_dump(mode="json"), variant.file_fields),
            files or [Path(f.name) for f in variant.files()],
            compute,
            {"use": guidance.name, **guidance.params.model_dump(mode="json")},
            {"use": cache.name, **cache.params.model_dump(mode="json")} if cache else None,
        )
        sampler = self._made("sampler", phase.sampler, (*at, "sampler"))
        if sampler.integrate is not None and phase.strategy.use != "grid":
            raise ScheduleError(
                f"sampler {sampler.name!r} goes through the phase by itself and asks no strategy",
                where=self.schedule.source.where((*at, "strategy")),
                value=phase.strategy.use,
                remedy="take 'strategy' out, or use another sampler",
            )
        return PlannedPhase(
            name=phase.name,
            variant=phase.variant,
            sampler=sampler,
            strategy=self._made("strategy", phase.strategy, (*at, "strategy"), sigmas),
            guidance=guidance,
            history=self._made("history", phase.history, (*at, "history")),
            compute=compute,
            sigmas=sigmas,
            field=field_name,
            boundary=boundary,
            params=params,
            cache=cache,
        )

    def _cache(self, phase: PhaseEntry, variant: ModelVariant, at: KeyPath) -> StepCache | None:
        """The phase's step cache; None for one that is off."""
        made: StepCache = self._made("cache", phase.cache, at)
        if made.off:
            return None
        if not variant.in_blocks:
            raise ScheduleError(
                f"variant {phase.variant!r} cannot be cached: it does not show its blocks",
                where=self.schedule.source.where(at),
                value=phase.cache.use,
                remedy="take 'cache' out of this phase",
            )
        return made

    def _facts(self, variants: Mapping[str, ModelVariant]) -> dict[str, VariantFacts]:
        facts: dict[str, VariantFacts] = {}
        used = {phase.variant for phase in self.schedule.phases}
        for key, variant in variants.items():
            at = self.schedule.source.where(("variants", key))
            if key not in used:
                self.warnings.append(f"{at}: no phase uses this variant")
            if any(not path.exists() for path in variant.files()):
                continue
            try:
                facts[key] = variant.facts()
            except UserError as exc:
                raise relocated(exc, at) from exc
            self.warnings += [f"{at}: {warning}" for warning in facts[key].warnings]
        return facts


def relocated(exc: UserError, at: str) -> GatekitError:
    """The same error, with the place in the schedule before its own."""
    where = f"{at}: {exc.where}" if exc.where else at
    return type(exc)(exc.message, where=where, value=exc.value, remedy=exc.remedy)
