"""The cells of a study run one after another; what is done already is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_tinywan.study import peer
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import Cell
from gatekit_tinywan.study.prompts import Split
from gatekit_tinywan.study.references import References, relative
from gatekit_tinywan.study.store import Row, Store
from gatekit_tinywan.study.watch import SettleWatch, Watched

if TYPE_CHECKING:
    from torch import Tensor


class OutOfTime(Exception):  # noqa: N818
    """The seconds allowed are over."""


@dataclass
class Study:
    """Runs cells on the first ``prompts`` prompts of a split.

    Attributes:
        bench: Where they run.
        store: Where values go.
        references: Ends of the converged flows.
        split: Which prompts.
        prompts: How many.
        batch: Videos at a time.
        judge: Whether videos are decoded and judged.
        until: ``time.monotonic()`` at which no further batch is begun.
        say: Takes a line a finished cell.
        failed: Cell's name -> what went wrong.
    """

    bench: Bench
    store: Store
    references: References
    split: Split
    prompts: int
    batch: int
    judge: bool = True
    until: float = float("inf")
    say: Callable[[str], None] = print
    failed: dict[str, str] = field(default_factory=dict[str, str])

    def run(self, cells: Sequence[Cell]) -> None:
        """Every cell; one that fails is put down and the others go on.

        Raises:
            OutOfTime: At ``until``; running again goes on from there.
        """
        for cell in cells:
            rows = self.lacking(cell)
            if not rows:
                continue
            try:
                self._run(cell, rows)
            except OutOfTime:
                raise
            except Exception as error:
                self.failed[cell.name] = gatekit.one_line(error)
                self.say(f"{cell.name}: failed: {self.failed[cell.name]}")

    def lacking(self, cell: Cell) -> list[int]:
        """Rows without values, or without a verdict where one is wanted."""
        there = self.store.read(cell)
        return [
            row
            for row in range(self.prompts)
            if row not in there or (self.judge and "right" not in there[row])
        ]

    def _run(self, cell: Cell, rows: Sequence[int]) -> None:
        plan = self.bench.fitted(self.references.fill(cell))
        for start in range(0, len(rows), self.batch):
            if time.monotonic() > self.until:
                raise OutOfTime
            part = rows[start : start + self.batch]
            for name in cell.flows:
                self.references.make(name, part, self.judge)
            self.store.append(cell, self._measured(cell, plan, part))
        values = list(self.store.read(cell).values())
        first = cell.flows[0]
        mean = sum(v[first] for v in values) / len(values)
        self.say(f"{cell.name}: {values[-1]['nfe']} evaluations, error {mean:.4f} to {first}")

    def _measured(self, cell: Cell, plan: gatekit.Plan, rows: Sequence[int]) -> list[Row]:
        made = self._sampled(cell, plan, rows)
        found: list[Row] = [{"i": row} for row in rows]
        for name in cell.flows:
            errors = relative(made.x, self.references.ends(name, rows))
            for row, error in zip(found, errors, strict=True):
                row[name] = float(f"{error:.6g}")
        if self.judge:
            for row, text in zip(found, self.bench.judged(made.x, self.split, rows), strict=True):
                row["right"] = text
        for i, row in enumerate(found):
            row |= {"nfe": made.nfe, "passes": made.passes, "seconds": made.seconds / len(rows)}
            row |= {key: values[i] for key, values in made.watched.items()}
        return found

    def _sampled(self, cell: Cell, plan: gatekit.Plan, rows: Sequence[int]) -> _Made:
        import torch

        policies = [Watched(phase.history) for phase in plan.phases[1:]]  # one a switch
        if "rho" in cell.watch:
            entered = zip(plan.phases[1:], policies, strict=True)
            watching = [replace(phase, history=policy) for phase, policy in entered]
            plan = replace(plan, phases=(plan.phases[0], *watching))
        settle = [SettleWatch(plan.phases[0])] if "settle" in cell.watch else []
        batch = self.bench.batch(plan, self.split, rows)
        start = batch.start()
        wait = torch.cuda.synchronize if self.bench.device.startswith("cuda") else lambda: None
        wait()
        began = time.perf_counter()
        with torch.no_grad():
            if cell.peer is None:
                x = batch.sample(start, settle)
            else:
                bounds = [(p.boundary.until, batch.denoiser(p)) for p in plan.phases]
                shift = float(plan.schedule.sigmas.params["shift"])
                x = peer.sample(cell.peer, cell.evaluations, start, shift, bounds)
        wait()
        seconds = time.perf_counter() - began
        watched: dict[str, list[Any]] = {}
        if "rho" in cell.watch:
            switches = [policy.rho or [None] * len(rows) for policy in policies]
            watched["rho"] = [list(rhos) for rhos in zip(*switches, strict=True)]
        for observer in settle:
            steps = [step for step, _ in observer.values]
            columns = zip(*(v for _, v in observer.values), strict=True)
            watched["settle"] = [list(zip(steps, c, strict=True)) for c in columns]
        if not bool(x.isfinite().all()):
            raise gatekit.NumericsError(
                "the samples ended at NaN or infinity",
                where=cell.name,
                remedy="give more evaluations, or leave the cell out with --only",
            )
        return _Made(x.cpu(), batch.nfe, batch.passes, seconds, watched)


@dataclass(frozen=True)
class _Made:
    """A sampled batch: final latents ``[n, C, T, H, W]``, and what they took."""

    x: Tensor
    nfe: int
    passes: int
    seconds: float
    watched: dict[str, list[Any]]
