"""What a run is doing: who is told of it, and how long each part took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from gatekit.state import Record

T = TypeVar("T")


class Progress(Protocol):
    """Who wants to know what a run is doing."""

    def doing(self, what: str) -> None:
        """Something without steps begins: ``encoding the prompt``."""
        ...

    def step(self, record: Record) -> None:
        """A step ended."""
        ...


class Silent:
    """A Progress that says nothing."""

    def doing(self, what: str) -> None:
        """Nothing."""

    def step(self, record: Record) -> None:
        """Nothing."""


@dataclass
class Timed:
    """Parts of a run, announced as they begin; ``seconds`` by name once they ended."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def __call__(self, what: str, call: Callable[[], T]) -> T:
        """Announce a part, do it, and keep how long it took."""
        self.progress.doing(what)
        began = time.perf_counter()
        value = call()
        self.seconds[what] = time.perf_counter() - began
        return value
