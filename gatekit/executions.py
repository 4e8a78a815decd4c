"""How each phase of a plan computes: the family is asked once the steps are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gatekit.boundaries import placed
from gatekit.execution import PhaseAsk
from gatekit.identity import field_with

if TYPE_CHECKING:
    from gatekit.plan import Plan, PlannedPhase


def executed(plan: Plan, every: Sequence[PlannedPhase]) -> Plan:
    """The plan with an ``Execution`` in each phase.

    Args:
        plan: Without.
        every: All phases of the schedule, those too that the start skips: what is wrong with
            them is said.

    Raises:
        ScheduleError: A backend or a precision that cannot be had here.
    """
    rows = replace(plan, phases=tuple(every)).table()
    asks = [
        PhaseAsk(
            name=phase.name,
            variant=plan.variants[phase.variant],
            found=phase.variant in plan.facts,
            compute=phase.compute,
            attention=entry.attention,
            compile=entry.compile,
            deterministic=plan.schedule.deterministic,
            cached=phase.cache is not None,
            passes=sum(row.passes for row in rows if row.phase == phase.name),
        )
        for phase, entry in zip(every, plan.schedule.phases, strict=True)
    ]
    chosen = placed(
        plan.schedule,
        ("phases",),
        lambda: plan.family.executions(asks, plan.video, plan.device),
    )
    by_name = {ask.name: execution for ask, execution in zip(asks, chosen, strict=True)}
    phases = tuple(
        replace(
            phase,
            execution=by_name[phase.name],
            field=field_with(phase.field, by_name[phase.name].changes),
        )
        for phase in plan.phases
    )
    return replace(plan, phases=phases)
