"""Which variants are compared, and with what: each in a plan of its own, checked as any plan."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gatekit


def expert_of(variant: gatekit.ModelVariant) -> str | None:
    """Which noise levels a variant was trained for; None for a single model."""
    return getattr(variant.params, "expert", None)


@dataclass(frozen=True)
class Candidate:
    """One variant, and the schedule with it wherever its expert serves.

    Attributes:
        key: Its name, under ``variants`` of the plan's schedule.
        plan: That schedule, resolved.
    """

    key: str
    plan: gatekit.Plan

    @property
    def variant(self) -> gatekit.ModelVariant:
        """The variant."""
        return self.plan.variants[self.key]

    @property
    def facts(self) -> gatekit.VariantFacts:
        """What its header says."""
        return self.plan.facts[self.key]

    @property
    def phases(self) -> tuple[gatekit.PlannedPhase, ...]:
        """The phases that it serves."""
        return tuple(p for p in self.plan.phases if p.variant == self.key)

    @property
    def fields(self) -> str:
        """What its predictions depend on."""
        return " ".join(phase.field for phase in self.phases)


@dataclass(frozen=True)
class Bench:
    """The reference and those compared with it, its own variants first.

    Attributes:
        plan: The schedule with the reference variants.
        candidates: One a variant, each once.
        overrides: What was changed in the schedule to get ``plan``.
    """

    plan: gatekit.Plan
    candidates: tuple[Candidate, ...]
    overrides: tuple[str, ...]

    @property
    def references(self) -> tuple[str, ...]:
        """The variants that the reference's phases name, each once."""
        return tuple(dict.fromkeys(phase.variant for phase in self.plan.phases))

    def reference_of(self, expert: str | None) -> str:
        """The first of them that is of an expert."""
        return next(k for k in self.references if expert_of(self.plan.variants[k]) == expert)


def prepare(
    schedule: Path,
    variants: Sequence[str],
    references: Sequence[str] = (),
    *,
    overrides: Sequence[str] = (),
    models_dir: Sequence[Path] | None = None,
    device: str | None = None,
) -> Bench:
    """Resolve the schedule with each variant in turn; loads no weights.

    Args:
        schedule: A schedule file.
        variants: Names under its ``variants``, or weight files.
        references: What replaces the variants of the phases of their expert, likewise.
        overrides: ``KEY=VALUE`` texts.
        models_dir: Folders of weight files.
        device: Where to run.

    Raises:
        InputError: No such variant; one of another size than the reference, or of an expert that
            serves no phase; two references of one expert; a run whose steps are not known.
        UserError: What ``resolve`` raises.
    """
    where = {"models_dir": models_dir, "device": device}
    return _Preparation(schedule, [*overrides], where).bench(variants, references)


@dataclass
class _Preparation:
    schedule: Path
    overrides: list[str]
    where: Mapping[str, Any]

    def bench(self, variants: Sequence[str], references: Sequence[str]) -> Bench:
        self.given = self._plan([], files=False)
        chosen: dict[str | None, str] = {}
        for text in references:
            key = self._key(text, "--reference")
            expert = self._expert(key, text, "--reference")
            if expert in chosen:
                raise gatekit.InputError(
                    f"two references of the expert {expert!r}",
                    where="--reference",
                    value=text,
                    remedy="give one for each expert",
                )
            chosen[expert] = key
        for expert, key in chosen.items():
            self.overrides += self._served_by(key, expert)
        reference = self._plan([])
        check_steps(reference)
        bench = Bench(reference, (), tuple(self.overrides))
        keys = list(bench.references)
        keys += [self._key(text, "--variants") for text in variants]
        given = dict(zip(keys[len(bench.references) :], variants, strict=True))
        found = [self._candidate(key, given.get(key, key)) for key in dict.fromkeys(keys)]
        for candidate in found:
            check_size(bench, candidate)
        return Bench(reference, tuple(found), tuple(self.overrides))

    def _candidate(self, key: str, text: str) -> Candidate:
        expert = self._expert(key, text, "--variants")
        return Candidate(key, self._plan(self._served_by(key, expert)))

    def _plan(self, more: Sequence[str], files: bool = True) -> gatekit.Plan:
        schedule = gatekit.load_schedule(self.schedule, [*self.overrides, *more])
        return gatekit.resolve(schedule, require_files=files, **self.where)

    def _served_by(self, key: str, expert: str | None) -> list[str]:
        """Overrides that let a variant serve every phase of its expert."""
        variants, phases = self.given.variants, self.given.schedule.phases
        return [
            f"phases.{i}.variant={key}"
            for i, phase in enumerate(phases)
            if expert_of(variants[phase.variant]) == expert
        ]

    def _experts(self) -> dict[str | None, str]:
        """Expert -> the first variant of it that a phase names."""
        variants = self.given.variants
        named = [p.variant for p in self.given.schedule.phases]
        return {expert_of(variants[key]): key for key in reversed(named)}

    def _expert(self, key: str, text: str, option: str) -> str | None:
        known = self._plan([], files=False).variants[key]
        expert, serving = expert_of(known), self._experts()
        if expert not in serving:
            names = ", ".join(repr(name) for name in serving)
            raise gatekit.InputError(
                f"a variant of the expert {expert!r}, which serves no phase",
                where=option,
                value=text,
                remedy=f"the schedule's phases are of {names}",
            )
        return expert

    def _key(self, text: str, option: str) -> str:
        """The variant's key in the schedule; a file that has none is put there."""
        schedule = self.given.schedule
        if text in schedule.variants:
            return text
        file = self._file(text)
        if file is None:
            near = difflib.get_close_matches(text, list(schedule.variants), 1)
            known = (
                f"did you mean {near[0]!r}?"
                if near
                else "its variants: " + ", ".join(schedule.variants)
            )
            raise gatekit.InputError(
                "no variant of the schedule, and no such file",
                where=option,
                value=text,
                remedy=known,
            )
        for key, variant in self.given.variants.items():
            if [f.resolve() for f in variant.files()] == [file.resolve()]:
                return key
        return self._added(file, option)

    def _file(self, text: str) -> Path | None:
        """A file as it is named, or beside those of the schedule."""
        folders = [f.parent for v in self.given.variants.values() for f in v.files()]
        named = [Path(text).expanduser(), *(folder / text for folder in dict.fromkeys(folders))]
        return next((file.absolute() for file in named if file.exists()), None)

    def _added(self, file: Path, option: str) -> str:
        schedule, experts = self.given.schedule, self._experts()
        spec = dict(gatekit.variant_spec(file, schedule.family.use))
        if set(experts) == {None}:
            spec.pop("expert", None)
        elif "expert" not in spec:
            raise gatekit.InputError(
                "the file's name does not say which expert it is",
                where=option,
                value=str(file),
                remedy="put it under 'variants' of the schedule and give its name there",
            )
        # LoRAs and the like are those of the variant that it stands in for.
        beside = schedule.variants[experts.get(spec.get("expert"), next(iter(experts.values())))]
        spec = {**{k: v for k, v in beside.params.items() if k != "file"}, **spec}
        stem = re.sub(r"[^A-Za-z0-9_]+", "-", file.stem).strip("-")
        key = stem if stem[:1].isalpha() else f"v-{stem}"
        taken = {o.split("=")[0].removeprefix("variants.") for o in self.overrides}
        while key in schedule.variants or key in taken:
            key += "-2"
        self.overrides.append(f"variants.{key}={json.dumps(spec)}")
        return key


def check_size(bench: Bench, candidate: Candidate) -> None:
    """Raise InputError where a variant is not of the size of its expert's reference."""
    key = bench.reference_of(expert_of(candidate.variant))
    own, other = size_of(candidate.facts), size_of(bench.plan.facts[key])
    if own != other:
        raise gatekit.InputError(
            f"variant {candidate.key!r} is of another size than the reference {key!r}",
            where="--variants",
            value=own,
            remedy=f"the reference is: {other}",
        )


def size_of(facts: gatekit.VariantFacts) -> str:
    """What two variants of one model have in common."""
    return facts.details.get("model", f"{facts.parameters:,} weights")


def check_steps(plan: gatekit.Plan) -> None:
    """Raise InputError where it is not known beforehand at which sigmas a run evaluates."""
    for phase in plan.phases:
        intervals = phase.strategy.intervals()
        adaptive = phase.strategy.adaptive or phase.sampler.adaptive
        if adaptive or any(after > before for before, after in intervals):
            raise gatekit.InputError(
                "a profile needs one path down, at sigmas known beforehand",
                where=f"phase {phase.name}",
                value=phase.sampler.name if phase.sampler.adaptive else phase.strategy.name,
                remedy="profile with strategy 'grid' and a sampler that is not adaptive: --set",
            )
