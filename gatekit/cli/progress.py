"""Progress bars, one a phase; where stderr is no terminal, lines for a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from gatekit.cli.waiting import Waiting
from gatekit.saying import say

if TYPE_CHECKING:
    from rich.console import Console

    from gatekit.plan import Plan
    from gatekit.state import Record


class Stepping(Protocol):
    """Who wants to know whether steps are being taken."""

    def stepping(self, phase: str | None) -> None:
        """Steps of a phase begin, or (None) something that is no step."""
        ...


def shown(plan: Plan, session: Stepping, done: Mapping[str, int]) -> Bars | Lines:
    """Bars on a terminal, else lines; ``done`` has the steps of an earlier run, by phase."""
    from rich.console import Console

    console = Console(stderr=True)
    return Bars(plan, session, done, console) if console.is_terminal else Lines(plan, session, done)


class Lines:
    """Plain lines on stderr: where a phase begins, then at most one a minute.

    A step of a large model takes minutes, and a log in which nothing stands looks like a hang.
    Of what has no steps, such as reading weights, there are lines where it lasts.
    """

    every = 60.0

    def __init__(
        self,
        plan: Plan,
        session: Stepping,
        done: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
        waiting: Waiting | None = None,
    ) -> None:
        """Lines for a plan; ``clock`` counts seconds, ``waiting`` says what lasts."""
        self._waiting = waiting or Waiting(lambda what, s: say(f"{what}, {s:.0f} s"))
        self._session, self._clock = session, clock
        self._totals = {p.name: len(p.strategy.intervals()) for p in plan.phases}
        self._taken = {name: done.get(name, 0) for name in self._totals}
        self._began = self._told = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.end()

    def doing(self, what: str) -> None:
        """The name of a phase means that its steps begin."""
        stepping = what in self._totals
        self._session.stepping(what if stepping else None)
        if stepping:
            self._waiting.end()
            self._began = self._told = self._clock()
            say(f"{what}: begins at step {self._taken[what] + 1}/{self._totals[what]}")
        else:
            self._waiting.begin(what)

    def step(self, record: Record) -> None:
        """One step further; said where a minute has passed since anything was."""
        name, now = record.phase, self._clock()
        self._taken[name] += 1
        if now - self._told < self.every:
            return
        self._told = now
        steps = f"step {self._taken[name]}/{self._totals[name]}"
        say(f"{name}: {steps}, {now - self._began:.0f} s")


def steps_only(column: Any) -> Any:
    """A column of the bars that stays empty where something without steps is going on."""
    render = column.render

    def unless_empty(task: Any) -> Any:
        return "" if task.total is None else render(task)

    column.render = unless_empty
    return column


class Bars:
    """A bar a phase, with its steps, the time they took and the time left."""

    def __init__(
        self, plan: Plan, session: Stepping, done: Mapping[str, int], console: Console
    ) -> None:
        """Bars for a plan; ``done`` has the steps that an earlier run took, by phase."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._plan, self._session, self._done = plan, session, done
        self._bars = Progress(
            TextColumn("{task.description}"),
            steps_only(BarColumn(bar_width=28)),
            steps_only(MofNCompleteColumn()),
            steps_only(TextColumn("took")),
            steps_only(TimeElapsedColumn()),
            steps_only(TextColumn("left")),
            steps_only(TimeRemainingColumn()),
            TextColumn("[dim]{task.fields[about]}"),
            console=console,
        )
        self._tasks: dict[str, Any] = {}
        self._status: Any = None

    def __enter__(self) -> Bars:
        self._bars.start()
        for phase in self._plan.phases:
            total = len(phase.strategy.intervals())
            storage = self._plan.facts[phase.variant].storage
            about = f"{phase.variant} ({storage}), {phase.sampler.name}"
            done = self._done.get(phase.name, 0)
            self._tasks[phase.name] = self._bars.add_task(
                phase.name, total=total, completed=done, start=False, about=about
            )
        self._status = self._bars.add_task("", total=None, start=False, visible=False, about="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.update(self._status, visible=False)
        self._bars.stop()

    def doing(self, what: str) -> None:
        """Show what is going on: the name of a phase means that its steps begin."""
        stepping = what in self._tasks
        self._session.stepping(what if stepping else None)
        if stepping:
            self._bars.start_task(self._tasks[what])
            self._bars.update(self._status, visible=False)
        else:
            self._bars.update(self._status, description=f"[dim]{what}", visible=True)

    def step(self, record: Record) -> None:
        """One step further; a phase that goes up and down may take more than planned."""
        task = self._tasks[record.phase]
        self._bars.start_task(task)
        self._bars.advance(task)
