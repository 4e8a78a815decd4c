"""What a cell of a sweep costs besides models, VAE and metrics, in one process.

    python tests/bench/sweep.py [--cells 40]

A sweep of the small model at 16x16 and two steps. The time in `velocity`, in encoding, in decoding
and in metrics is taken off; what is left is gatekit's own: planning is done before, so it is the
runner, noise, writing the latent and the line (both synchronised to disk), and the loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from gatekit import outside
from gatekit_research.sweep.local import run_all
from gatekit_research.sweep.setup import Setup
from gatekit_research.sweep.store import Store

ROOT = Path(__file__).parents[2]
SWEEP = """\
version: 1
name: bench
base: {base}
set:
  video: {{width: 16, height: 16, frames: 9, fps: 16}}
  sigmas.steps: 2
  phases.high.until: 0.9
list:
  - {{name: euler, set: {{phases.high.sampler: euler}}}}
  - {{name: unipc}}
prompts: [a small green cross]
seeds: {seeds}
metrics: [latent_rmse]
reference: unipc
"""


class Meter:
    """Adds up the time spent in some methods."""

    def __init__(self) -> None:
        self.seconds = self.processor = 0.0

    def on(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter(), time.process_time()
            try:
                return real(*args, **options)
            finally:
                self.seconds += time.perf_counter() - began[0]
                self.processor += time.process_time() - began[1]

        setattr(owner, name, timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=40)
    cells = parser.parse_args().cells
    os.environ[outside.VARIABLE] = "1"  # the sweep is written elsewhere than its base
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench.yaml"
        base = ROOT / "schedules" / "tinywan_fp16.yaml"
        file.write_text(SWEEP.format(base=base, seeds=cells // 2))
        setup, store = Setup.of(file, device="cpu"), Store(Path(folder) / "out")
        store.begin(setup.about())
        bench, meter, disk = setup.bench(store), Meter(), Meter()
        disk.on(os, "fsync")
        for arm in setup.arms:
            for variant in arm.plan.variants.values():
                meter.on(variant, "velocity")
                meter.on(variant, "load")
            meter.on(arm.plan.family, "encode")
            meter.on(arm.plan.family, "decode")
        for metric in bench.measures.metrics:
            meter.on(metric, "measure")
        each: list[tuple[float, float]] = []

        def now() -> tuple[float, float]:
            return time.perf_counter() - meter.seconds, time.process_time() - meter.processor

        last = [now()]

        def done(cell: Any, line: Any) -> None:
            assert line["status"] == "done", line
            wall, processor = now()
            each.append((wall - last[0][0], processor - last[0][1]))
            last[0] = now()

        run_all(bench, store, setup.cells, done)
        print(f"{len(each)} cells; gatekit's own time a cell, without models, VAE and metrics:")
        for name, values in zip(("wall", "processor"), zip(*each, strict=True), strict=True):
            first, *rest = (1e3 * value for value in values)
            most, median = max(rest), statistics.median(rest)
            print(f"{name}: median {median:.1f} ms, most {most:.1f} ms, the first {first:.0f} ms")
        print(f"of the wall time {disk.seconds / len(each) * 1e3:.1f} ms wait for the disk (fsync)")
        print("aim: at most 20 ms")


if __name__ == "__main__":
    main()
