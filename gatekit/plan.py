"""Plan: a schedule with every name looked up and every sigma known. It holds no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.execution import PLAIN, Execution

if TYPE_CHECKING:
    from gatekit.boundaries import Boundary
    from gatekit.family import ModelFamily, VideoSpec
    from gatekit.guidance import Guidance
    from gatekit.history import HistoryPolicy
    from gatekit.lookup import MissingFile
    from gatekit.params import VariantParams
    from gatekit.phase import Phase
    from gatekit.sampler import Sampler
    from gatekit.schedule import Schedule
    from gatekit.start import Start
    from gatekit.stepcache import StepCache
    from gatekit.variant import ModelVariant, VariantFacts


@dataclass(frozen=True)
class PlannedPhase:
    """One phase, ready to run.

    Attributes:
        name: Its name.
        variant: Key of its variant in ``Plan.variants``.
        sampler: Its sampler.
        strategy: What interval comes next.
        guidance: Its guidance.
        history: What happens to the history where this phase is entered.
        compute: What the arithmetic runs in.
        sigmas: From the phase's start to its end, both included.
        field: Stable name of what predicts: weights, LoRAs, arithmetic, guidance, step cache.
        boundary: How its end was given, and what it became.
        params: The variant's parameters as this phase has them.
        cache: Its step cache; None: none.
        execution: How the model computes: attention backend, compiled or not.
    """

    name: str
    variant: str
    sampler: Sampler
    strategy: Phase
    guidance: Guidance
    history: HistoryPolicy
    compute: str
    sigmas: tuple[float, ...]
    field: str
    boundary: Boundary
    params: VariantParams
    cache: StepCache | None = None
    execution: Execution = PLAIN


@dataclass(frozen=True)
class PlannedStep:
    """One row of the plan.

    Attributes:
        step: Number of the interval, from 0.
        phase: Name of its phase.
        sigma: Where it starts.
        sigma_next: Where it ends; above ``sigma`` for a renoise.
        timestep: Model timestep at the start: 1000 sigma.
        model: Key of the variant.
        sampler: Name of the sampler; ``renoise`` for an upward interval.
        nfe: Denoiser evaluations, those of a boundary just before it included.
        passes: Model passes in them, those that a step cache may shorten included.
    """

    step: int
    phase: str
    sigma: float
    sigma_next: float
    timestep: float
    model: str
    sampler: str
    nfe: int
    passes: int


@dataclass(frozen=True)
class Plan:
    """A schedule resolved: ``gatekit.run`` needs nothing else but the inputs.

    Attributes:
        schedule: What it was made from.
        family: The model family, with its components' files.
        video: Size of the video.
        variants: Every variant, by its key in the schedule; none is loaded.
        phases: In order; those that ``start`` skips are left out.
        run_sigmas: Every sigma of the run, from the first to 0.
        device: Where it runs.
        missing: Files that were not found; ``run`` refuses a plan that has any.
        warnings: Oddities worth a line.
        facts: What the headers of the files found say, by variant.
        start: Where a run from a video starts; None for a run from noise.
    """

    schedule: Schedule
    family: ModelFamily
    video: VideoSpec
    variants: Mapping[str, ModelVariant]
    phases: tuple[PlannedPhase, ...]
    run_sigmas: tuple[float, ...]
    device: str
    missing: tuple[MissingFile, ...]
    warnings: tuple[str, ...]
    facts: Mapping[str, VariantFacts]
    start: Start | None = None

    def table(self) -> tuple[PlannedStep, ...]:
        """Every interval of the run, in order."""
        rows: list[PlannedStep] = []
        before: PlannedPhase | None = None
        for phase in self.phases:
            nfe, passes = self._boundary_cost(before, phase)
            for sigma, sigma_next in phase.strategy.intervals():
                up = sigma_next > sigma
                steps = 0 if up else 1 if sigma_next == 0.0 else phase.sampler.nfe_per_step
                row = PlannedStep(
                    step=len(rows),
                    phase=phase.name,
                    sigma=sigma,
                    sigma_next=sigma_next,
                    timestep=1000.0 * sigma,
                    model=phase.variant,
                    sampler="renoise" if up else phase.sampler.name,
                    nfe=nfe + steps,
                    passes=passes + steps * phase.guidance.passes_at(sigma),
                )
                rows.append(row)
                nfe = passes = 0
            before = phase
        return tuple(rows)

    @staticmethod
    def _boundary_cost(before: PlannedPhase | None, phase: PlannedPhase) -> tuple[int, int]:
        """Evaluations and passes that entering a phase adds: those of the leaving model."""
        if before is None:
            return 0, 0
        if before.field == phase.field and not phase.history.acts_on_same_field:
            return 0, 0
        nfe = phase.history.evaluations
        return nfe, nfe * before.guidance.passes_at(phase.sigmas[0])

    @property
    def nfe(self) -> int:
        """Denoiser evaluations of the run."""
        return sum(row.nfe for row in self.table())

    @property
    def passes(self) -> int:
        """Model passes of the run: guidance takes several an evaluation."""
        return sum(row.passes for row in self.table())

    @property
    def exact(self) -> bool:
        """Whether the number of steps is known; strategies and samplers may be adaptive."""
        return not any(p.strategy.adaptive or p.sampler.adaptive for p in self.phases)

    @property
    def resident_bytes(self) -> int | None:
        """Expected memory of the largest variant; None where a header could not be read."""
        if not {phase.variant for phase in self.phases} <= set(self.facts):
            return None
        return max(self.facts[p.variant].resident_for(p.compute) for p in self.phases)

    def files(self) -> tuple[Path, ...]:
        """Every file found that decides the result, each once."""
        groups = [variant.files() for variant in self.variants.values()]
        groups += self.family.component_files().values()
        return tuple(dict.fromkeys(f for group in groups for f in group if f.exists()))

    def resolved(self) -> dict[str, Any]:
        """The schedule as it runs here: with its device, as other devices give other bits."""
        return self.schedule.to_dict() | {"device": self.device}

    def explain(self) -> str:
        """What will happen, as text for people."""
        from gatekit.explain import explain

        return explain(self)

    def to_json(self) -> dict[str, Any]:
        """Everything, as plain data for ``json.dumps``."""
        from gatekit.explain import to_json

        return to_json(self)
