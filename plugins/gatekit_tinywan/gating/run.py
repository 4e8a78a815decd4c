"""The arms run in batches; a line a video in a sweep's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_research.sweep.bench import about, failed, spent
from gatekit_research.sweep.cells import Cell
from gatekit_research.sweep.measure import load_latent
from gatekit_research.sweep.store import LATENTS, Line, Store
from gatekit_tinywan.batch import Batch, Prompts, embed, family_of
from gatekit_tinywan.caption_metric import parts
from gatekit_tinywan.gating.setup import METRICS, REFERENCE, Setup

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit_tinywan.world import SceneBatch


@dataclass
class Runner:
    """Runs what a folder lacks.

    Attributes:
        setup: Arms, plans and cells.
        store: The folder.
        device: Where to compute.
        batch: Videos at a time.
        until: ``time.monotonic()`` at which no further batch is begun.
        say: Takes a line a batch.
        failures: Cells that failed.
    """

    setup: Setup
    store: Store
    device: str
    batch: int
    until: float = float("inf")
    say: Callable[[str], None] = print
    failures: list[str] = field(default_factory=list[str])
    _text: dict[tuple[str, int], Prompts] = field(default_factory=dict[tuple[str, int], Prompts])

    def run(self, names: Collection[str]) -> int:
        """These arms on the first captions, then on the next; returns the videos left.

        So what is there when time is over has fewer captions, not fewer arms.
        """
        lines = self.store.read()
        done = {digest for digest, line in lines.items() if line["status"] == "done"}
        arms = [arm for arm in self.setup.arms if arm.name in names]
        keys = self.setup.keys
        parts = [keys[i : i + self.batch] for i in range(0, len(keys), self.batch)]
        work = [[self.setup.by[arm.name, k] for k in part] for part in parts for arm in arms]
        work = [[cell for cell in cells if cell.digest not in done] for cells in work]
        work = [cells for cells in work if cells]
        for number, cells in enumerate(work):
            if time.monotonic() > self.until:
                return sum(map(len, work[number:]))
            made = self._lines(cells)
            self.store.append(*made)
            found = [line["metrics"] for line in made if line["status"] == "done"]
            right = sum(metrics["caption.all_right"] for metrics in found)
            self.say(f"{cells[0].arm.name}: {len(found)} videos, {right:.0f} all right")
        return 0

    def _lines(self, cells: Sequence[Cell]) -> list[Line]:
        began = time.perf_counter()
        try:
            return self._made(cells, began)
        except (KeyboardInterrupt, gatekit.Cancelled):
            raise
        except Exception as exc:
            self.failures.append(f"{cells[0].arm.name}: {gatekit.one_line(exc)}")
            self.say(f"failed: {self.failures[-1]}")
            return [failed(cell, exc, time.perf_counter() - began) for cell in cells]

    def _made(self, cells: Sequence[Cell], began: float) -> list[Line]:
        import torch

        plan, n = cells[0].arm.plan, len(cells)
        batch = Batch(plan, self._prompts(cells), self.device)
        for phase in plan.phases:
            plan.variants[phase.variant].load(self.device, phase.compute)
        start = batch.start()
        wait = torch.cuda.synchronize if self.device.startswith("cuda") else lambda: None
        wait()
        clock = time.perf_counter()
        with torch.no_grad():
            latents = batch.sample(start)
        wait()
        seconds = (time.perf_counter() - clock) / n
        if not bool(latents.isfinite().all()):
            raise gatekit.NumericsError(
                "the samples ended at NaN or infinity",
                where=cells[0].arm.name,
                remedy="give more --steps, or --compute fp32",
            )
        verdicts = self._judged(latents, self.setup.scenes_of(cells))
        latents = latents.float().cpu()
        others = self._references(cells, latents)
        # The steps of a batch are not timed one by one: each counts as the same part of it.
        each = seconds / len(plan.table())
        records = [
            SimpleNamespace(
                phase=s.phase, sigma=s.sigma, sigma_next=s.sigma_next, nfe=s.nfe, passes=s.passes,
                seconds=each,
            )
            for s in plan.table()
        ]  # fmt: skip
        if (batch.nfe, batch.passes) != (plan.nfe, plan.passes):
            raise RuntimeError(f"{batch.nfe} evaluations where the plan has {plan.nfe}")
        rmse = gatekit.find_metric("latent_rmse")()
        wall = (time.perf_counter() - began) / n
        found: list[Line] = []
        for i, cell in enumerate(cells):
            own, other = gatekit.Sample(latent=latents[i]), gatekit.Sample(latent=others[i])
            compared = gatekit.Sample(latent=own.latent, reference=other)
            metrics = {f"caption.{k}": v for k, v in verdicts[i].items()}
            found.append(
                about(cell)
                | {"status": "done"}
                | spent(cell, records)
                | {
                    "metrics": metrics | {"latent_rmse": rmse.measure(compared)},
                    "curves": {},
                    "unmeasured": {},
                    "asked": list(METRICS),
                    "reference": cell.reference,
                    "rho": [],
                    "wall": wall,
                }
            )
        return found

    def _prompts(self, cells: Sequence[Cell]) -> Prompts:
        """Embedded by the arm's own text encoder; each caption once."""
        import torch

        plan = cells[0].arm.plan
        file = str(plan.schedule.text_encoder.file) if plan.schedule.text_encoder else ""
        lacking = sorted({c.prompt for c in cells if (file, c.prompt) not in self._text})
        if lacking:
            captions = [self.setup.captions[i] for i in lacking]
            made = embed(plan, captions, [0] * len(lacking), self.device)
            self._text |= {(file, row): made[[i]] for i, row in enumerate(lacking)}
        rows = [self._text[file, cell.prompt] for cell in cells]
        seeds = tuple(int(cell.inputs.seed) for cell in cells)
        return Prompts(torch.cat([row.text for row in rows]), rows[0].negative, seeds)

    @cached_property
    def _vae(self) -> Any:
        return family_of(self.setup.arms[0].plan).open_vae(self.device)

    def _judged(self, latents: Tensor, scenes: SceneBatch) -> list[Mapping[str, float]]:
        import torch

        from gatekit_tinywan.world import judge

        with torch.no_grad():
            video = torch.cat([self._vae.decode(z) for z in latents.split(16)]) / 2 + 0.5
            verdict = judge(video, scenes.to(self.device))
        return [parts(verdict, i) for i in range(len(latents))]

    def _references(self, cells: Sequence[Cell], latents: Tensor) -> Tensor:
        """Ends of the fp16 arm for the same captions and noise; those of that arm are kept."""
        import torch
        from safetensors.torch import save

        if cells[0].arm.name == REFERENCE:
            for cell, latent in zip(cells, latents, strict=True):
                data = save({"latent": latent.contiguous()})
                gatekit.write_atomic(self.store.file(LATENTS, cell.digest), data)
            return latents
        return torch.stack([load_latent(self.store, str(cell.reference)) for cell in cells])
