"""A planned phase made ready to run: its model is opened when its first evaluation is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gatekit.errors import InputError
from gatekit.guided import Guided

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.plan import Plan, PlannedPhase
    from gatekit.progress import Progress
    from gatekit.residency import Residency
    from gatekit.stage import Evaluate, Memory, Stage
    from gatekit.unchanged import Unchanged


def model_stage(
    plan: Plan,
    phase: PlannedPhase,
    conditionings: Mapping[str, Any],
    residency: Residency,
    unchanged: Unchanged,
    progress: Progress,
) -> Stage:
    """The stage of a phase whose model predicts through guidance and cache.

    Args:
        plan: The plan that the phase is of.
        phase: The phase.
        conditionings: What the family encoded, by name.
        residency: Brings the model in, and tries again where memory ran out.
        unchanged: Looks at the model's files before they are touched.
        progress: Told when the model is loaded and when the phase begins.

    Raises:
        InputError: The phase's guidance needs a conditioning that the family does not give.
    """
    from gatekit.stage import Stage

    for name in phase.guidance.needs:
        if name not in conditionings:
            raise InputError(
                f"guidance {phase.guidance.name!r} needs a conditioning {name!r}, which family "
                f"{plan.family.name!r} does not give",
                where=f"phase {phase.name}",
                remedy="use another guidance in that phase",
            )
    opened: list[Guided] = []
    known = conditionings[phase.guidance.needs[0]].with_known

    def open_model() -> Evaluate:
        progress.doing(f"loading {phase.variant}")
        files = plan.variants[phase.variant].files()
        unchanged.check(files)
        plan.variants[phase.variant].adjust(phase.params)
        plan.variants[phase.variant].configure(phase.execution)
        variant = residency.acquire(phase)
        progress.doing(phase.name)

        guided = Guided(variant, phase.guidance, conditionings, phase.cache)
        opened.append(guided)

        def evaluate(x: Tensor, sigma: float, memory: Memory) -> tuple[Tensor, Memory]:
            unchanged.check_held(files)
            counted = guided.passes, guided.skipped

            def velocity() -> tuple[Tensor, Memory]:
                guided.passes, guided.skipped = counted  # a second attempt counts once
                return guided.velocity(x, sigma, memory)

            v, after = residency.guarded(phase, velocity)
            return known(x - sigma * v), after

        return evaluate

    return Stage(
        name=phase.name,
        field=phase.field,
        sampler=phase.sampler,
        strategy=phase.strategy,
        history=phase.history,
        open=open_model,
        passes=lambda: sum(guided.passes for guided in opened),
        skipped=lambda: sum(guided.skipped for guided in opened),
        model=phase.variant,
    )
