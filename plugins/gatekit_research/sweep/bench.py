"""One cell run and measured: from inputs to a line of results."""

from __future__ import annotations

import time
from typing import Any

import gatekit
from gatekit_research.sweep.cells import Cell
from gatekit_research.sweep.measure import FAILED, NONE, Measured, Measures, decode, load_latent
from gatekit_research.sweep.store import LATENTS, TRACES, VIDEOS, Line, Store
from gatekit_research.sweep.watch import Watch, save_trace


class Bench:
    """Where cells run: weights, prompts and references stay from one to the next.

    Args:
        store: The sweep's folder.
        metrics: Names.
        referred: Digests of cells that others compare with.
        videos: Whether every cell's mp4 is kept.
        prompts: How many prompts there are.
    """

    def __init__(
        self, store: Store, metrics: tuple[str, ...], referred: set[str], videos: bool, prompts: int
    ) -> None:
        self.store, self.referred, self.videos = store, referred, videos
        self.measures = Measures(metrics, store)
        self.warm = gatekit.Warm(prompts=max(32, prompts))

    def lacks(self, cell: Cell, line: Line | None) -> str:
        """What a cell needs: ``run``, ``measure`` (its latent is there), or nothing."""
        if line is None or line["status"] != "done":
            return "run"
        wanted = [LATENTS, *([VIDEOS] if self.videos else [])]
        if self.measures.traced and cell.digest in self.referred:
            wanted.append(TRACES)
        if not all(self.store.file(kind, cell.digest).exists() for kind in wanted):
            return "run"
        known = {*line["metrics"], *line["unmeasured"], *line["asked"]} - failed_metrics(
            line
        ).keys()
        missing = [m for m in self.measures.metrics if m.name not in known]
        moved = [m for m in self.measures.metrics if "reference" in m.needs]
        absent = any(text.startswith(NONE) for text in line["unmeasured"].values())
        there = cell.reference and self.store.file(LATENTS, cell.reference).exists()
        if line["reference"] != cell.reference or (absent and there):
            missing += moved
        if any("trace" in metric.needs for metric in missing):
            return "run"
        return "measure" if missing else ""

    def run(self, cell: Cell) -> Line:
        """Make a cell's video and measure it. What fails becomes a line that says so."""
        began = time.perf_counter()
        try:
            return self._line(cell, self._made(cell), began)
        except (KeyboardInterrupt, gatekit.Cancelled):
            raise
        except Exception as exc:
            return failed(cell, exc, time.perf_counter() - began)

    def measure(self, cell: Cell, line: Line) -> Line:
        """Measure a finished cell again, from its latent."""
        try:
            latent = load_latent(self.store, cell.digest)
            found = self.measures.of(cell, latent, lambda: decode(cell.arm.plan, latent), None)
        except Exception as exc:
            return failed(cell, exc, 0.0)
        said = self._said(cell, found)
        for kind in ("metrics", "curves"):  # of a metric that needs a trace the value stays
            said[kind] = line[kind] | said[kind]
        return line | about(cell) | said

    def _made(self, cell: Cell) -> Line:
        keeps = self.measures.traced
        watch = Watch(keeps)
        result = gatekit.run(
            cell.arm.plan, cell.inputs, observers=[watch], warm=self.warm, decode=False
        )
        store, digest = self.store, cell.digest
        if keeps and digest in self.referred:
            save_trace(store.file(TRACES, digest), watch.trace)
        result.save(store.file(LATENTS, digest))
        measured = self.measures.of(cell, result.latent, lambda: result.video, watch.trace)
        if self.videos:
            result.save(store.file(VIDEOS, digest))
        return spent(cell, result.trajectory) | {"rho": watch.rho} | self._said(cell, measured)

    def _said(self, cell: Cell, found: Measured) -> Line:
        return {
            "metrics": found.metrics,
            "curves": found.curves,
            "unmeasured": found.unmeasured,
            "asked": [metric.name for metric in self.measures.metrics],
            "reference": cell.reference,
        }

    def _line(self, cell: Cell, made: Line, began: float) -> Line:
        wall = time.perf_counter() - began
        return about(cell) | {"status": "done"} | made | {"wall": wall}


def about(cell: Cell) -> Line:
    """Which cell a line is of."""
    return {
        "cell": cell.digest,
        "arm": cell.arm.name,
        "prompt": cell.prompt,
        "seed": cell.seed,
        "noise_seed": cell.inputs.seed,
    }


def failed_metrics(line: Line) -> dict[str, str]:
    """Metrics of a line that raised what no metric should, and what; they are tried again."""
    found = line.get("unmeasured", {}).items()
    return {name: reason for name, reason in found if reason.startswith(FAILED)}


def failed(cell: Cell, exc: BaseException, wall: float) -> Line:
    """The line of a cell that failed."""
    known = isinstance(exc, gatekit.GatekitError)
    text = str(exc) if known else gatekit.one_line(exc)
    return about(cell) | {"status": "failed", "error": text.splitlines()[0], "wall": wall}


def spent(cell: Cell, records: Any) -> Line:
    """What a run took: evaluations, passes, seconds of its steps, bits and bytes of its weights.

    ``bits`` is the mean over passes of the bits a weight is stored in; ``bytes`` the size of the
    weights summed over passes: what would be read if each pass read its file once.
    """
    plan = cell.arm.plan
    variant = {phase.name: phase for phase in plan.phases}
    by: dict[str, dict[str, float]] = {}
    passes = bits = size = 0.0
    for record in records:
        phase = variant[record.phase]
        facts = plan.facts[phase.variant]
        entry = by.setdefault(label(plan, phase), {"passes": 0, "seconds": 0.0})
        entry["passes"] += record.passes
        entry["seconds"] += record.seconds
        passes += record.passes
        bits += record.passes * facts.bits_per_weight
        size += record.passes * facts.file_bytes
    return {
        "nfe": sum(record.nfe for record in records),
        "passes": int(passes),
        "bits": bits / passes if passes else None,
        "bytes": size,
        "seconds": sum(record.seconds for record in records),
        "variants": by,
        "steps": [[r.phase, r.sigma, r.sigma_next, r.nfe, r.seconds] for r in records],
    }


def label(plan: gatekit.Plan, phase: gatekit.PlannedPhase) -> str:
    """What makes passes take equally long: files, arithmetic, size of the video."""
    files = "+".join(path.name for path in plan.variants[phase.variant].files())
    video = plan.video
    size = f"{video.width}x{video.height}x{video.frames}"
    return f"{files} {phase.compute} {size} {plan.device}"
