"""How well two local workers of Ray share a sweep: their rate over twice that of one.

    python tests/bench/ray_workers.py [--cells 48] [--rounds 2] [--json FILE]

A sweep of the small model on a CPU, one thread a worker, by one worker and by two in turn. What
it takes to start is left out: the clock runs from the moment when each worker has ended its first
cell. Every cell counts, and so does the time in which one of the two is idle at the end. Other work
on the machine falsifies it: two cores have to be free.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from gatekit import outside
from gatekit_research.sweep import workers
from gatekit_research.sweep.setup import Setup
from gatekit_research.sweep.store import Store

ROOT = Path(__file__).parents[2]
SWEEP = """\
version: 1
name: workers
base: {base}
set: {{sigmas.steps: {steps}}}
list:
  - {{name: euler, set: {{phases.high.sampler: euler}}}}
  - {{name: unipc}}
prompts: [a small green cross]
seeds: {seeds}
metrics: [latent_rmse]
reference: unipc
"""


def rate(file: Path, out: Path, count: int) -> float:
    """Cells a second of so many workers, once each has ended one."""
    setup, store = Setup.of(file, device="cpu"), Store(out)
    store.begin(setup.about())
    ended: list[float] = []

    def done(cell: Any, line: Any) -> None:
        assert line["status"] == "done", line
        ended.append(time.perf_counter())

    crew = workers.Crew(file, device="cpu", workers=count)
    crew.run_all(setup.bench(store), store, setup.cells, done)
    began = ended[count - 1]  # the first ones come from workers that start together
    return (len(ended) - count) / (ended[-1] - began)


def main() -> None:
    """Measure in turns, print the median."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=48)
    parser.add_argument("--steps", type=int, default=10, help="of each video")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.environ[outside.VARIABLE] = "1"  # the sweep is written elsewhere than its base
    workers.os.cpu_count = lambda: 1  # one thread a worker, however many there are
    found: list[dict[str, float]] = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "workers.yaml"
            base = ROOT / "schedules" / "tinywan_fp16.yaml"
            file.write_text(SWEEP.format(base=base, steps=args.steps, seeds=args.cells // 2))
            one, two = (rate(file, Path(folder) / f"{n}", n) for n in (1, 2))
        found.append({"one": one, "two": two, "efficiency": two / (2 * one)})
        print(
            f"one worker {one:.3f} cells/s, two {two:.3f}: {found[-1]['efficiency']:.3f} of ideal"
        )
    median = statistics.median(row["efficiency"] for row in found)
    print(f"median {median:.3f} of ideal; aim: at least 0.95")
    if args.json:
        args.json.write_text(json.dumps({"rounds": found, "median": median}, indent=1))


if __name__ == "__main__":
    main()
