"""Making a profile: the reference's runs, then each variant in turn on their states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

import gatekit
from gatekit_research.inputs import Prompt
from gatekit_research.profile.candidates import Bench, Candidate, expert_of
from gatekit_research.profile.document import FORMAT, Made, Measured, Profile, Row, Step
from gatekit_research.profile.measure import Visit
from gatekit_research.profile.recording import record
from gatekit_research.profile.work import Work, digest


@dataclass(frozen=True)
class Profiling:
    """One profile to be made; what is in the work folder is not done again.

    Attributes:
        bench: The reference and the variants.
        prompts: What to show.
        seeds: Of each prompt.
        work: Where states and results are kept.
        schedule: The schedule file.
        image: First frame of prompts that name none.
    """

    bench: Bench
    prompts: Sequence[Prompt]
    seeds: Sequence[int]
    work: Work
    schedule: Path
    image: Path | None = None

    @property
    def runs(self) -> list[gatekit.Inputs]:
        """Inputs of every run, a prompt's seeds together."""
        return [p.inputs(seed, self.image) for p in self.prompts for seed in self.seeds]

    @cached_property
    def names(self) -> list[str]:
        """Of the states of every run."""
        return [name_of(self.bench.plan, run) for run in self.runs]

    def make(self, progress: gatekit.Countdown | None = None) -> Profile:
        """Measure what is lacking and put all of it together.

        Raises:
            UserError: What ``gatekit.run`` raises.
            NumericsError: A variant predicted NaN or infinity.
        """
        for run in self.runs:
            self.bench.plan.family.check_inputs(run)
        self.work.begin()
        warm = gatekit.Warm(len(self.runs))
        try:
            with progress or gatekit.Countdown(self.evaluations) as bar:
                self._references(bar, warm)
                unloaded(warm)
                for candidate in self.bench.candidates:
                    self._visit(candidate, bar, warm)
        finally:
            warm.close()
        return self._profile()

    @property
    def evaluations(self) -> int:
        """Evaluations that are lacking."""
        lacking = [name for name in self.names if not self.work.has_states(name)]
        steps = {
            c.key: sum(len(p.strategy.intervals()) for p in c.phases) for c in self.bench.candidates
        }
        visits = sum(steps[c.key] * len(self._lacking(c)) for c in self.bench.candidates)
        return len(lacking) * self.bench.plan.nfe + visits

    def _references(self, bar: gatekit.Countdown, warm: gatekit.Warm) -> None:
        for i, (run, name) in enumerate(zip(self.runs, self.names, strict=True)):
            if self.work.has_states(name):
                continue
            bar.doing(f"reference, run {i + 1} of {len(self.names)}")
            watch = [lambda _, record, __: bar.advance(record.nfe)]
            states = record(self.bench.plan, run, watch, warm)
            self.work.save_states(name, states)

    def _result_name(self, candidate: Candidate, states: str) -> str:
        return digest(states, candidate.fields)

    def _lacking(self, candidate: Candidate) -> list[int]:
        names = [self._result_name(candidate, name) for name in self.names]
        return [i for i, name in enumerate(names) if self.work.result(name) is None]

    def _visit(self, candidate: Candidate, bar: gatekit.Countdown, warm: gatekit.Warm) -> None:
        lacking = self._lacking(candidate)
        if not lacking:
            return
        bar.doing(candidate.key)
        with Visit(candidate) as visit:
            for i in lacking:
                states = self.work.states(self.names[i])
                conditionings = warm.encode(self.bench.plan, self.runs[i])
                rows = visit.measure(states, conditionings, bar.advance)
                name = self._result_name(candidate, self.names[i])
                self.work.save_result(
                    name, {"variant": candidate.key, "peak": visit.peak_bytes(), "rows": rows}
                )

    def _profile(self) -> Profile:
        import torch

        plan = self.bench.plan
        experts = {p.name: expert_of(plan.variants[p.variant]) for p in plan.phases}
        steps = [
            Step(
                sigma=row.sigma,
                sigma_next=row.sigma_next,
                phase=row.phase,
                expert=experts[row.phase],
                nfe=row.nfe,
            )
            for row in plan.table()
        ]
        made = Made(
            schedule=str(self.schedule.resolve()),
            overrides=list(self.bench.overrides),
            name=plan.schedule.name,
            family=plan.family.name,
            video=[plan.video.width, plan.video.height, plan.video.frames],
            device=device_name(plan.device),
            compute={p.name: p.compute for p in plan.phases},
            guidance={p.name: guidance_of(p) for p in plan.phases},
            components=identities(plan),
            prompts=[prompt.text for prompt in self.prompts],
            images=[identity(prompt.image or self.image) for prompt in self.prompts],
            seeds=list(self.seeds),
            gatekit=gatekit.__version__,
            torch=torch.__version__,
        )
        return Profile(
            format=FORMAT,
            made=made,
            steps=steps,
            reference={p.name: p.variant for p in plan.phases},
            variants={c.key: self._measured(c) for c in self.bench.candidates},
        )

    def _measured(self, candidate: Candidate) -> Measured:
        names = [self._result_name(candidate, name) for name in self.names]
        results: list[Any] = [self.work.result(name) for name in names]
        variant, facts = candidate.variant, candidate.facts
        use = candidate.plan.schedule.variants[candidate.key]
        spec = {"use": use.use, **use.params, "file": str(variant.files()[0])}
        peaks = [result["peak"] for result in results if result["peak"] is not None]
        return Measured(
            expert=expert_of(variant),
            spec=spec,
            files=[gatekit.file_identity(file) for file in variant.files()],
            storage=facts.storage,
            bits=facts.bits_per_weight,
            file_bytes=facts.file_bytes,
            resident_bytes=facts.resident_bytes,
            peak_bytes=max(peaks, default=None),
            rows=averaged([result["rows"] for result in results]),
        )


def name_of(plan: gatekit.Plan, run: gatekit.Inputs) -> str:
    """Of what comes of a run, by all that it depends on."""
    made = {k: v for k, v in plan.resolved().items() if k not in ("variants", "name")}
    fields = [phase.field for phase in plan.phases]
    parts = [identities(plan), device_name(plan.device), gatekit.__version__]
    return digest(made, fields, parts, run.prompt, identity(run.image), run.seed)


def averaged(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[Row]:
    """Rows of several runs, step by step."""
    return [
        Row(
            step=rows[0]["step"],
            sigma=rows[0]["sigma"],
            relative=fmean(r["relative"] for r in rows),
            cosine=fmean(r["cosine"] for r in rows),
            x0=fmean(r["x0"] for r in rows),
            rms=fmean(r["rms"] for r in rows),
            rms_sd=pstdev(r["rms"] for r in rows),
            seconds=median(r["seconds"] for r in rows),
        )
        for rows in zip(*runs, strict=True)
    ]


def guidance_of(phase: gatekit.PlannedPhase) -> str:
    """``cfg scale=3.0``: what the velocities of a phase depend on besides the model."""
    params = phase.guidance.params.model_dump(mode="json", exclude_defaults=True)
    return " ".join([phase.guidance.name, *(f"{k}={v}" for k, v in params.items())])


def identity(file: Any) -> tuple[str, int, str] | None:
    """Of a prompt's image."""
    return None if file is None else gatekit.file_identity(Path(file))


def identities(plan: gatekit.Plan) -> list[tuple[str, int, str]]:
    """Of the files that are no denoising model."""
    groups = plan.family.component_files().values()
    return [gatekit.file_identity(file) for group in groups for file in group]


def device_name(device: str) -> str:
    """Other devices give other bits and other seconds."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)


def unloaded(warm: gatekit.Warm) -> None:
    """Weights go, encoded prompts stay."""
    for variant in warm.loaded:
        variant.unload()
    warm.loaded.clear()
