"""How far a long command is: a bar with the time left, or a line a minute without a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from gatekit.saying import say


class Countdown:
    """Counts units of work, all about equally long.

    Args:
        total: Units to be done now; those of an earlier start do not count.
        every: Seconds between two lines where stderr is no terminal.
        clock: Counts seconds.
    """

    def __init__(
        self, total: int, every: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.done, self.every, self.clock = total, 0, every, clock
        self.told = clock()
        self._first: float | None = None  # when the first units were done: loading came before
        self._before = 0
        self.what = ""
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Countdown:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        if console.is_terminal:
            columns = (BarColumn(28), MofNCompleteColumn(), TextColumn("left"))
            text = TextColumn("[dim]{task.description}")
            self._bar = Progress(*columns, TimeRemainingColumn(), text, console=console)
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def doing(self, what: str) -> None:
        """What the next units are."""
        self.what = what
        if self._bar is not None:
            self._bar.update(self._task, description=what)

    def advance(self, units: int = 1) -> None:
        """Units are done."""
        self.done += units
        if self._bar is not None:
            self._bar.advance(self._task, units)
            return
        now = self.clock()
        if self._first is None:
            self._first, self._before = now, self.done
        elif now - self.told >= self.every:
            self.told = now
            pace = (now - self._first) / (self.done - self._before)
            left = duration(pace * (self.total - self.done))
            say(f"{self.what}: {self.done}/{self.total}, about {left} left")


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
