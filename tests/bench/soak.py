"""Soak: many runs in one process; what grows? ``tests/bench/soak.py [--runs N] [--json FILE]``.

A cycle of ten runs of the small model at a small size is repeated: GGUF, fp16 and both gated,
other samplers, streamed weights, every kind of result, kept weights, runs that fail, one that is
cancelled and resumed. After each run the process's memory, threads and open files are read.
Required: memory after the last run within 2 % of that after run 20, and no thread and no open file
more. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHIN = 0.02
SETTLED = 20  # runs until libraries have made their pools and caches
SIZE = ["sigmas.steps=4", "video.width=64", "video.height=64", "video.frames=5", "device=cpu"]
PROMPT = "a large red circle moves right slowly on a light background"

Kind = tuple[str, Callable[[int], None]]


@dataclass(frozen=True)
class Reading:
    """The process after a run.

    Attributes:
        run: Its number, from 1.
        kind: What it was.
        anonymous: Bytes that the process holds and no file backs.
        resident: The same with pages of mapped files, which the system takes back when it likes.
        threads: Of the operating system.
        python_threads: Names of Python's.
        files: What is open, pipes and devices too.
        seconds: What the run took.
    """

    run: int
    kind: str
    anonymous: int
    resident: int
    threads: int
    python_threads: tuple[str, ...]
    files: tuple[str, ...]
    seconds: float


def reading(run: int, kind: str, seconds: float) -> Reading:
    """Read ``/proc``."""
    status = Path("/proc/self/status").read_text("ascii")

    def kib(name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0

    files: list[str] = []
    for link in os.listdir("/proc/self/fd"):  # noqa: PTH208  (a Path's iterator holds one open)
        try:
            files.append(re.sub(r"\d{3,}", "N", os.readlink(f"/proc/self/fd/{link}")))  # noqa: PTH115
        except OSError:
            continue  # the listing's own
    threads = re.search(r"^Threads:\s+(\d+)", status, re.MULTILINE)
    names = tuple(sorted(thread.name for thread in threading.enumerate()))
    return Reading(
        *(run, kind, kib("RssAnon"), kib("VmRSS"), int(threads[1]) if threads else 0),
        *(names, tuple(sorted(files)), seconds),
    )


def soak(kinds: Sequence[Kind], runs: int) -> Iterator[Reading]:
    """Run them in turns."""
    for run in range(1, runs + 1):
        name, call = kinds[(run - 1) % len(kinds)]
        began = time.perf_counter()
        call(run)
        yield reading(run, name, time.perf_counter() - began)


def grown(early: Reading, late: Reading) -> list[str]:
    """What is more than it may be, in words."""
    found: list[str] = []
    growth = late.anonymous / early.anonymous - 1
    if growth > WITHIN:
        found.append(f"memory grew by {growth:.1%} from run {early.run} to run {late.run}")
    for what, before, after in (
        ("thread", early.python_threads, late.python_threads),
        ("open file", early.files, late.files),
    ):
        left = list(after)
        for name in before:
            if name in left:
                left.remove(name)
        found += [f"{what} left: {name}" for name in left]
    if late.threads > early.threads:
        found.append(f"{late.threads - early.threads} threads more")
    return found


def tensors() -> int:
    """Tensors alive after a search for garbage."""
    import torch

    gc.collect()
    return sum(1 for thing in gc.get_objects() if type(thing) is torch.Tensor)


def small_model(folder: Path) -> list[Kind]:
    """One cycle of the small model."""
    import gatekit

    warm = gatekit.Warm()
    weights = ROOT / "plugins" / "gatekit_tinywan" / "weights"
    cut = folder / "cut.safetensors"
    whole = (weights / "tinywan_low_fp16.safetensors").read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])

    def clear() -> None:
        for path in folder.iterdir():
            if path != cut:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def run(schedule: str, out: str, number: int, *overrides: str, **given: object) -> None:
        loaded = gatekit.load_schedule(ROOT / "schedules" / schedule, [*SIZE, *overrides])
        plan = gatekit.resolve(loaded)
        inputs = gatekit.Inputs(prompt=PROMPT, seed=number)
        gatekit.run(plan, inputs, out=f"{folder}/{out}", **given)  # pyright: ignore
        if not given.get("resume"):
            clear()

    def fails(schedule: str, number: int, error: type[Exception], *overrides: str) -> None:
        try:
            run(schedule, "out.mp4", number, *overrides)
        except error:
            clear()
        else:
            raise AssertionError(f"{overrides} did not fail")

    def cancelled(number: int) -> None:
        def stop(state: object, record: object, denoised: object) -> None:
            raise gatekit.Cancelled

        try:
            run("quickstart.yaml", "out.mp4", number, observers=[stop])
        except gatekit.Cancelled:
            run("quickstart.yaml", "out.mp4", number, resume=folder / "out.run")
            clear()
        else:
            raise AssertionError("the run was not cancelled")

    known = gatekit.list_samplers()
    other = [f"phases.{phase}.sampler={{use: {name}}}" for phase, name in OTHER if name in known]
    gated, fp16, q2k = "quickstart.yaml", "tinywan_fp16.yaml", "tinywan_q2k.yaml"
    return [
        ("gated", lambda n: run(gated, "out.mp4", n)),
        ("fp16", lambda n: run(fp16, "out.webp", n)),
        ("q2k", lambda n: run(q2k, "frames/", n)),
        ("gated, kept", lambda n: run(gated, "out.mp4", n, warm=warm)),
        ("cancelled, resumed", cancelled),
        ("gated, samplers", lambda n: run(gated, "out.safetensors", n, *other)),
        ("NaN", lambda n: fails(fp16, n, gatekit.NumericsError, OVERFLOW)),
        ("q2k, kept", lambda n: run(q2k, "out.mp4", n, warm=warm)),
        (
            "damaged file",
            lambda n: fails(fp16, n, gatekit.WeightsError, f"variants.low.file={cut}"),
        ),
        ("streamed", lambda n: run(gated, "out.mp4", n, "memory.vram=12MiB")),
    ]


OTHER = (("commit", "er_sde"), ("structure", "sa_solver"), ("polish", "k_diffusion/heun"))
OVERFLOW = "phases.low.guidance={use: cfg, scale: 1e38}"


def line(r: Reading) -> str:
    """A reading for people."""
    memory = f"{r.anonymous / 2**20:6.1f} MiB {r.resident / 2**20:6.1f} MiB"
    return f"{r.run:4}  {r.kind:18} {memory}  {r.threads:7}  {len(r.files):5}  {r.seconds:7.1f}"


def report(readings: Sequence[Reading], alive: Sequence[int]) -> dict[str, object]:
    """Everything, as plain data."""
    early = readings[min(SETTLED, len(readings)) - 1]
    late = readings[-1]
    cycle = 10
    begin, end = readings[early.run - cycle : early.run], readings[-cycle:]
    medians = [statistics.median(r.anonymous for r in part or readings) for part in (begin, end)]
    return {
        "runs": len(readings),
        "growth": late.anonymous / early.anonymous - 1,
        "growth_of_medians": medians[1] / medians[0] - 1,
        "tensors": list(alive),
        "grown": grown(early, late),
        "readings": [asdict(r) for r in readings],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    readings: list[Reading] = []
    alive: list[int] = []
    with tempfile.TemporaryDirectory(prefix="gatekit-soak-") as name:
        print(f"{'run':>4}  {'kind':18} {'memory':>10} {'resident':>10}  threads  files  seconds")
        for r in soak(small_model(Path(name)), options.runs):
            readings.append(r)
            print(line(r), flush=True)
            if r.run in (SETTLED, options.runs):
                alive.append(tensors())
    found = report(readings, alive)
    against = min(SETTLED, len(readings))
    print(f"memory of the last run against run {against}: {found['growth']:+.2%}")
    print(f"of the medians of ten runs up to these: {found['growth_of_medians']:+.2%}")
    print(f"tensors alive then and now: {alive}")
    for text in found["grown"] or ["no thread and no file left; memory within 2 %"]:  # pyright: ignore
        print(text)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1), "utf-8")
    return 1 if found["grown"] else 0


if __name__ == "__main__":
    sys.exit(main())
