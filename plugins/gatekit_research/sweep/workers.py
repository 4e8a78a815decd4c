"""The cells of a sweep on local workers of Ray, which keep their variants warm."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.sweep.bench import Bench, failed
from gatekit_research.sweep.cells import Cell
from gatekit_research.sweep.local import Done
from gatekit_research.sweep.store import Line, Store


def import_ray() -> Any:
    """Ray. Raises InputError where it is not installed."""
    try:
        return importlib.import_module("ray")
    except ImportError as exc:
        raise gatekit.InputError(
            "Ray is not installed",
            where="--ray",
            remedy=f"{gatekit.install_extra('ray')}, or leave --ray out",
        ) from exc


class Worker:
    """One process: sets up the same sweep, runs the cells it is told, and writes no lines.

    Args:
        path: The sweep file.
        folder: Of the sweep.
        models_dir: Folders of weights.
        device: Where it computes.
        threads: Of torch.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        models_dir: Sequence[Path] | None,
        device: str | None,
        threads: int,
    ) -> None:
        import torch

        from gatekit_research.sweep.setup import Setup

        torch.set_num_threads(threads)
        setup = Setup.of(path, models_dir, device)
        self._cells = {cell.digest: cell for cell in setup.cells}
        self._bench = setup.bench(Store(folder))

    def run(self, digest: str, line: Line | None) -> Line:
        """The line of a cell; ``line``: measure again what it says is done."""
        cell = self._cells[digest]
        return self._bench.run(cell) if line is None else self._bench.measure(cell, line)


@dataclass
class Hand:
    """A worker as the leading process sees it."""

    actor: Any
    arm: str = ""
    cell: Cell | None = None


@dataclass
class Crew:
    """Workers for one sweep.

    A worker stays with its arm while there are cells of it, then takes one that no other is at. A
    cell waits for its reference. A worker that dies costs its cell, and is replaced.

    Args:
        path: The sweep file.
        models_dir: Folders of weights.
        device: Where to compute; each worker is given a GPU of its own where it is one.
        workers: How many; default: a GPU each, else one for two cores.
    """

    path: Path
    models_dir: Sequence[Path] | None = None
    device: str | None = None
    workers: int | None = None
    _ray: Any = field(default_factory=import_ray)

    def run_all(self, bench: Bench, store: Store, cells: Sequence[Cell], done: Done) -> None:
        """As ``local.run_all``, on the workers; lines are written here alone."""
        lines = store.read()
        waiting = {c.digest: c for c in cells if bench.lacks(c, lines.get(c.digest))}
        if not waiting:
            return
        ray = self._ray
        hands: list[Hand] = []
        started = not ray.is_initialized()
        if started:
            ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            hands += [Hand(self._hire(store)) for _ in range(min(self._count(), len(waiting)))]
            self._lead(bench, store, waiting, lines, hands, done)
        finally:
            for hand in hands:
                ray.kill(hand.actor)
            if started:
                ray.shutdown()

    def _lead(
        self,
        bench: Bench,
        store: Store,
        waiting: dict[str, Cell],
        lines: dict[str, Line],
        hands: list[Hand],
        done: Done,
    ) -> None:
        busy: dict[Any, Hand] = {}
        pending = set(waiting)
        while waiting or busy:
            for hand in hands:
                if hand.cell is None and (cell := self._next(hand, hands, waiting, pending)):
                    del waiting[cell.digest]
                    line = lines.get(cell.digest)
                    known = line if bench.lacks(cell, line) == "measure" else None
                    hand.cell, hand.arm = cell, cell.arm.name
                    busy[hand.actor.run.remote(cell.digest, known)] = hand
            (ready,), _ = self._ray.wait(list(busy), num_returns=1)
            hand = busy.pop(ready)
            cell, hand.cell = hand.cell, None
            assert cell is not None
            try:
                line = self._ray.get(ready)
            except self._ray.exceptions.RayError as exc:
                line = failed(cell, exc, 0.0)
                hand.actor = self._hire(store)
            pending.discard(cell.digest)
            store.append(line)
            done(cell, line)

    @staticmethod
    def _next(
        hand: Hand, hands: Sequence[Hand], waiting: dict[str, Cell], pending: set[str]
    ) -> Cell | None:
        free = [
            cell
            for cell in waiting.values()
            if cell.reference in (cell.digest, None) or cell.reference not in pending
        ]
        elsewhere = {other.arm for other in hands if other is not hand}
        for wanted in (lambda a: a == hand.arm, lambda a: a not in elsewhere, lambda _: True):
            for cell in free:
                if wanted(cell.arm.name):
                    return cell
        return None

    def _count(self) -> int:
        return self.workers or self._gpus() or max(1, (os.cpu_count() or 2) // 2)

    def _gpus(self) -> int:
        device = self.device or ""
        return int(self._ray.cluster_resources().get("GPU", 0)) if device != "cpu" else 0

    def _hire(self, store: Store) -> Any:
        gpus = 1 if self._gpus() else 0
        remote = self._ray.remote(num_cpus=0, num_gpus=gpus)(Worker)
        threads = max(1, (os.cpu_count() or 1) // self._count())
        models = [folder.absolute() for folder in self.models_dir] if self.models_dir else None
        return remote.remote(
            self.path.absolute(), store.folder.absolute(), models, self.device, threads
        )
