"""Ends of the converged flows, and fine runs to measure on, made where they lack and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.fit_runs import chosen
from gatekit_basics.travel import Fine, Travel, fine_grid, load, looked_at, mean_of, save, switches
from gatekit_tinywan.study import flow
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import FLOWS, Cell, histories, samplers
from gatekit_tinywan.study.prompts import Split
from gatekit_tinywan.study.store import Store

if TYPE_CHECKING:
    from torch import Tensor

PROFILE_ROWS, PROFILE_STEPS = range(16), 120
TRIES = 40  # grids that are run on the same rows, for each number of steps


def relative(x: Tensor, reference: Tensor) -> list[float]:
    """Relative root mean square error of each sample: |x - r| / |r|."""
    difference, size = ((v.float().flatten(1).norm(dim=1)) for v in (x - reference, reference))
    return (difference / size).tolist()


class References:
    """Of one run; a sample's end is a file of its own, so that more prompts add to what is there.

    Args:
        bench: Where they are made.
        store: The run: its folder is of one set of weights, prompts, device and arithmetic.
        split: Which prompts.
        steps: Of the fine run; its error is what half of them change.
    """

    def __init__(self, bench: Bench, store: Store, split: Split, steps: int = flow.FINE) -> None:
        self.bench, self.steps = bench, steps
        self.split: Split = split
        self.folder = store.folder / "references"
        self._travels: dict[str, Fine] = {}

    def make(self, name: str, rows: Sequence[int], judge: bool) -> None:
        """Have the ends of these rows on disk, with their own error; and the verdicts.

        Raises:
            NumericsError: A flow ended at NaN or infinity: nothing could be compared with it.
        """
        import torch

        lacking = [row for row in rows if not self._file(name, row).exists()]
        if lacking:
            fine, half = (self._run(name, lacking, n) for n in (self.steps, self.steps // 2))
            for row, x, error in zip(lacking, fine, relative(half, fine), strict=True):
                self._save(name, row, x, error, "")
        unjudged = [row for row in rows if judge and not self._load(name, row)[2]]
        if unjudged:
            found = [self._load(name, row) for row in unjudged]
            ends = torch.stack([x for x, _, _ in found])
            verdicts = self.bench.judged(ends, self.split, unjudged)
            for row, (x, error, _), verdict in zip(unjudged, found, verdicts, strict=True):
                self._save(name, row, x, error, verdict)

    def ends(self, name: str, rows: Sequence[int]) -> Tensor:
        """Final latents ``[n, C, T, H, W]``, float32 on the CPU."""
        import torch

        return torch.stack([self._load(name, row)[0] for row in rows])

    def errors(self, name: str) -> dict[int, tuple[float, str]]:
        """Row -> the reference's own error, and its verdict (empty if not judged)."""
        files = sorted(self.folder.glob(f"{name}-{self.steps}-*.safetensors"))
        rows = [int(f.stem.rsplit("-", 1)[1]) for f in files]
        return {row: self._load(name, row)[1:] for row in rows}

    def fill(self, cell: Cell) -> Cell:
        """The cell with what it needs measured, if anything, in place."""
        if not cell.measured:
            return cell
        fine = self.travel(FLOWS[cell.base])
        return cell.with_measured(fine.profile, lambda steps: self._chosen(cell.base, fine, steps))

    def travel(self, name: str) -> Fine:
        """Fine runs of a flow's own models over prompts of ``tune``."""
        if name not in self._travels:
            file = self.folder / f"travel-{name}.safetensors"
            plan = self.bench.plan(name, {})
            fields = [phase.field for phase in plan.phases]
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                save(file, self._measured(name, switches(plan)), fields)
            self._travels[name] = load(file, fields)
        return self._travels[name]

    def _chosen(self, base: str, fine: Fine, steps: int) -> list[float]:
        """As ``gatekit fit --try``, less the schedule's own grid; kept."""
        file = self.folder / f"grid-{base}-{steps}.json"
        if not file.exists():
            first = fine.travelled.sigmas[0]
            found = chosen(fine, first, steps, lambda grid: self._ends(base, grid), TRIES)
            gatekit.write_atomic(file, json.dumps(found).encode())
        return json.loads(file.read_text())[0][1]

    def _ends(self, base: str, grid: Sequence[float]) -> Tensor | None:
        import torch

        try:
            plan = self.bench.plan(base, _explicit(grid))
            with torch.no_grad():
                return looked_at(self.bench.batch(plan, "tune", PROFILE_ROWS).sample())
        except (gatekit.ScheduleError, gatekit.NumericsError):
            return None  # NaN, or a phase that the grid leaves without a step

    def _measured(self, name: str, boundaries: Sequence[float]) -> Fine:
        import torch

        values = fine_grid(1.0, PROFILE_STEPS, boundaries)
        changes = {**samplers(name, "structure"), **histories(name, "reset")}
        changes |= _explicit(values)
        plan = self.bench.plan(name, changes)
        travel = Travel()
        with torch.no_grad():
            self.bench.batch(plan, "tune", PROFILE_ROWS).sample(observers=[travel])
        return mean_of([travel], boundaries)

    def _run(self, name: str, rows: Sequence[int], steps: int) -> Tensor:
        import torch

        plan = self.bench.plan(name, flow.changes(name, steps))
        with torch.no_grad():
            ends = self.bench.batch(plan, self.split, rows).sample().cpu()
        if not bool(ends.isfinite().all()):
            raise gatekit.NumericsError(
                "the converged flow ended at NaN or infinity",
                where=name,
                value=steps,
                remedy="give more --reference-steps, or check the weights",
            )
        return ends

    def _file(self, name: str, row: int) -> Path:
        return self.folder / f"{name}-{self.steps}-{row}.safetensors"

    def _save(self, name: str, row: int, x: Tensor, error: float, verdict: str) -> None:
        from safetensors.torch import save

        file = self._file(name, row)
        file.parent.mkdir(parents=True, exist_ok=True)
        about = {"error": repr(error), "verdict": verdict}
        gatekit.write_atomic(file, save({"x": x.contiguous()}, metadata=about))

    def _load(self, name: str, row: int) -> tuple[Tensor, float, str]:
        from safetensors import safe_open

        with safe_open(self._file(name, row), framework="pt") as file:
            about = file.metadata()
            return file.get_tensor("x"), float(about["error"]), about["verdict"]


def _explicit(values: Sequence[float]) -> dict[str, Any]:
    return {
        "sigmas": {"use": "explicit", "values": list(values)},
        "sigmas.steps": len(values) - 1,
    }
