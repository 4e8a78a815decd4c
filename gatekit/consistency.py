"""What the keys of a schedule say together: names, boundaries, and how steps are given."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gatekit.errors import ScheduleError
from gatekit.suggest import did_you_mean

if TYPE_CHECKING:
    from gatekit.schedule import Schedule
    from gatekit.yamlsource import Source


def check(schedule: Schedule, source: Source) -> None:
    """What one key alone cannot tell. Raises ScheduleError."""
    phases = schedule.phases
    twice = [name for name, n in Counter(p.name for p in phases).items() if n > 1]
    for i, phase in enumerate(phases):
        if phase.name in twice and phase.name in [p.name for p in phases[:i]]:
            raise ScheduleError(
                f"two phases are called {phase.name!r}",
                where=source.where(("phases", i, "name")),
                remedy="give each phase its own name",
            )
        if phase.variant not in schedule.variants:
            raise ScheduleError(
                f"unknown variant {phase.variant!r}",
                where=source.where(("phases", i, "variant")),
                remedy=did_you_mean(phase.variant, schedule.variants),
            )
        if phase.until is None and i + 1 < len(phases):
            raise ScheduleError(
                f"phase {phase.name!r} does not say where it ends",
                where=source.where(("phases", i)),
                remedy="add 'until', such as until: 0.9; only the last phase runs to 0",
            )
        if phase.until is not None and i + 1 == len(phases):
            raise ScheduleError(
                "the last phase runs to 0 and has no boundary",
                where=source.where(("phases", i, "until"), key=True),
                remedy="take 'until' out, or add a phase after it",
            )
        allotted = schedule.sigmas.allot is not None or phase.share is not None
        if phase.sigmas is not None and phase.steps is None and not allotted:
            raise ScheduleError(
                "a phase's own grid needs its own number of steps",
                where=source.where(("phases", i, "sigmas"), key=True),
                remedy="add 'steps' or a 'share' to the phase, or take 'sigmas' out of it",
            )
    _check_steps(schedule, source)
    _check_shares(schedule, source)


def _check_steps(schedule: Schedule, source: Source) -> None:
    own = [i for i, phase in enumerate(schedule.phases) if phase.steps is not None]
    if own and schedule.sigmas.steps is not None:
        raise ScheduleError(
            "steps are given both for the whole grid and for a phase",
            where=source.where(("phases", own[0], "steps"), key=True),
            remedy="keep 'sigmas.steps' (one grid, cut at 'until') or each phase's own 'steps'",
        )
    if own and len(own) < len(schedule.phases):
        lacking = next(i for i in range(len(schedule.phases)) if i not in own)
        raise ScheduleError(
            f"phase {schedule.phases[lacking].name!r} has no steps, but another phase has its own",
            where=source.where(("phases", lacking)),
            remedy="give 'steps' in every phase, or in 'sigmas' alone",
        )


def _check_shares(schedule: Schedule, source: Source) -> None:
    given = [i for i, phase in enumerate(schedule.phases) if phase.share is not None]
    if not given and schedule.sigmas.allot is None:
        return
    if given and schedule.sigmas.allot is not None:
        raise ScheduleError(
            "steps are shared both by a rule and by a phase's share",
            where=source.where(("phases", given[0], "share"), key=True),
            remedy="keep 'sigmas.allot' or each phase's 'share'",
        )
    if given and len(given) < len(schedule.phases):
        lacking = next(i for i in range(len(schedule.phases)) if i not in given)
        raise ScheduleError(
            f"phase {schedule.phases[lacking].name!r} has no share, but another phase has one",
            where=source.where(("phases", lacking)),
            remedy="give 'share' in every phase: only their ratios matter",
        )
    if schedule.sigmas.steps is None:
        raise ScheduleError(
            "steps are to be shared, but their number is missing",
            where=source.where(("sigmas",)),
            remedy="add 'steps' there, and none to phases",
        )
