"""Lines about what has no steps and lasts: weights read from a slow disk look like a hang."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

FIRST, EVERY = 10.0, 60.0  # seconds until something is said, and until it is said again


class Timer(Protocol):
    """What is used of ``threading.Timer``."""

    daemon: bool

    def start(self) -> None:
        """Call it, later."""
        ...

    def cancel(self) -> None:
        """Do not call it."""
        ...


class Waiting:
    """Says what is going on once it has for ten seconds, then once a minute.

    Args:
        say: Takes what is going on and for how many seconds; called from a thread.
        timer: Makes a timer of seconds and a function.
        clock: Counts seconds.
    """

    def __init__(
        self,
        say: Callable[[str, float], None],
        timer: Callable[[float, Callable[[], None]], Timer] = threading.Timer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._timer, self._clock = say, timer, clock
        self._lock = threading.Lock()
        self._what, self._began = "", 0.0
        self._running: Timer | None = None

    def begin(self, what: str) -> None:
        """Something begins, and what went on before is over."""
        self.end()
        with self._lock:
            self._what, self._began = what, self._clock()
            self._arm(FIRST)

    def end(self) -> None:
        """It is over: nothing more is said of it once this returns."""
        with self._lock:
            if self._running is not None:
                self._running.cancel()
            self._running = None

    def _arm(self, seconds: float) -> None:
        made: Timer

        def passed() -> None:
            with self._lock:
                if self._running is not made:  # ended meanwhile
                    return
                self._say(self._what, self._clock() - self._began)
                self._arm(EVERY)

        made = self._timer(seconds, passed)
        made.daemon = True
        self._running = made
        with contextlib.suppress(RuntimeError):  # no thread to be had: nothing is said
            made.start()
