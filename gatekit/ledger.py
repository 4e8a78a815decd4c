"""Ledger: the records of a run, and everybody who is told of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gatekit.stage import Engine, Stage
from gatekit.state import Record, State
from gatekit.telling import Told

if TYPE_CHECKING:
    from torch import Tensor

Observer = Callable[[State, Record, "Tensor"], None]
Checkpoint = Callable[[State, Record], None]


@dataclass
class Ledger:
    """Meters intervals, keeps their records, tells checkpoint, observers and hooks.

    Attributes:
        entered: The state in which the phase was entered: what is saved of a sampler that cannot go
            on in the midst of its stretch.
    """

    engine: Engine
    observers: tuple[Observer, ...] = ()
    checkpoint: Checkpoint | None = None
    hooks: Any = None
    records: list[Record] = field(default_factory=list[Record])
    entered: State | None = None
    _clock: float = 0.0
    _boundary: float = 0.0
    _nfe: int = 0
    _passes: int = 0
    _skipped: int = 0

    def __post_init__(self) -> None:
        self._told = Told(self.hooks)

    def start(self) -> None:
        """An interval begins; whatever is loaded has been loaded."""
        self._clock = time.perf_counter()

    @contextmanager
    def boundary(self) -> Generator[None]:
        """Time an evaluation at a boundary; it counts for the interval after it."""
        began = time.perf_counter()
        yield
        self._settle()
        self._boundary += time.perf_counter() - began

    def add(
        self, stage: Stage, before: State, after: State, sampler: str, denoised: Tensor
    ) -> None:
        """An interval has ended."""
        self._settle()
        record = Record(
            step=before.step,
            phase=stage.name,
            sigma=before.sigma,
            sigma_next=after.sigma,
            nfe=self.engine.nfe - self._nfe,
            passes=self.engine.passes - self._passes,
            seconds=time.perf_counter() - self._clock + self._boundary,
            field=stage.field,
            sampler=sampler,
            note=before.note,
            skipped=self.engine.skipped - self._skipped,
        )
        self._nfe, self._passes, self._boundary = self.engine.nfe, self.engine.passes, 0.0
        self._skipped = self.engine.skipped
        self.records.append(record)
        if self.checkpoint is not None:
            whole = stage.sampler.resumable or after.sigma == stage.sigmas[-1]
            self.checkpoint(after if whole else self.entered or before, record)
        for observer in self.observers:
            observer(after, record, denoised)
        self.tell("step_end", state=after, record=record, denoised=denoised)

    def _settle(self) -> None:
        """Where somebody is told: wait for the prediction, so that its time and value are known."""
        if self.checkpoint is not None or self.observers or self.hooks is not None:
            self.engine.check()

    def tell(self, event: str, **arguments: Any) -> None:
        """Call the observing hook ``gatekit_<event>``; a plugin that fails is told no more."""
        self._told.tell(event, arguments)

    def ask(self, question: str, state: State, leaving: str, entering: str) -> State | None:
        """Call a hook whose first result wins."""
        return self._told.ask(question, {"state": state, "leaving": leaving, "entering": entering})
