"""What a step costs beside the model, per sampler, and what the bytes that must move would cost.

    python tests/bench/overhead.py [SAMPLER ...] [--shape 16 21 60 104] [--threads 1]

Each sampler runs a phase over a model that is timed and taken off. Before it answers, the model
sweeps through a large buffer, as a real one does, so that nothing of the step before is in a cache.
From the steps in the middle of the run, the fastest counts, of every part:

- seconds: runner and sampler, without model, noise, and the search for NaN;
- bound: the bytes that must move, at the bandwidth with which this process copies tensors of this
  size that are in no cache. What must move: every tensor that the step reads, once between two
  calls of the model, whatever its arithmetic reads; and every tensor that it leaves behind or
  hands to the model;
- NaN and noise: what is taken off for them;
- calls and moved: calls of torch a step over whole tensors, as a GPU gets them; of the tensors
  that they read and write, those that must move. On a CPU what is above that stays in the cache;
- GPU: an ESTIMATE, not a measurement: the larger of 5 microseconds a call, and the
  bytes that they move at 2.97 TB/s, the copy bandwidth of one H100.

With one thread, CPU time is measured, so that a busy machine does not count; else wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gatekit
from gatekit.stage import Engine

STEPS, GPU_BANDWIDTH, GPU_LAUNCH = 12, 2.97e12, 5e-6


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("samplers", nargs="*", help="default: all with fixed steps")
    parser.add_argument("--shape", nargs="+", type=int, default=[16, 21, 60, 104])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.thread_time if args.threads == 1 else time.perf_counter
    x = torch.randn(1, *args.shape, generator=torch.Generator().manual_seed(0))
    known = gatekit.list_samplers()
    names = args.samplers or [
        n for n, c in known.items() if not c.adaptive and not n.startswith("k_diffusion/")
    ]
    bandwidth = copy_bandwidth(x, clock)
    size = x.numel() * x.element_size()
    print(
        f"{'x'.join(map(str, args.shape))} float32, {size / 1e6:.2f} MB; {args.threads} thread(s); "
        f"copies at {bandwidth / 1e9:.1f} GB/s read and written\n"
    )
    print("| sampler | ms | bound ms | ratio | NaN ms | noise ms | calls | moved | GPU ms |")
    print("|---|---|---|---|---|---|---|---|---|")
    worst = 0.0
    for name in names:
        cost, traffic = measure(name, x, clock), count(name, x)
        bound = traffic.least * size / bandwidth
        worst = max(worst, cost.step / bound)
        estimate = max(traffic.calls * GPU_LAUNCH, traffic.moved * size / GPU_BANDWIDTH)
        print(
            f"| `{name}` | {cost.step * 1e3:.1f} | {bound * 1e3:.1f} | {cost.step / bound:.2f} | "
            f"{cost.nan * 1e3:.1f} | {cost.noise * 1e3:.1f} | {traffic.calls} | "
            f"{traffic.least:.0f} of {traffic.moved:.0f} | {estimate * 1e3:.2f} |",
            flush=True,
        )
    print(f"\nlargest ratio {worst:.2f}, aim 2")


def copy_bandwidth(x: Tensor, clock: Callable[[], float]) -> float:
    """Bytes read and written a second while tensors like ``x`` are copied, cold."""
    ring = [torch.zeros_like(x) for _ in range(max(4, int(400e6 / x.numel() / x.element_size())))]
    seconds: list[float] = []
    for _ in range(3):
        for source, target in zip(ring[::2], ring[1::2], strict=False):
            began = clock()
            target.copy_(source)
            seconds.append(clock() - began)
    return 2 * x.numel() * x.element_size() / min(seconds)


@dataclass
class Cost:
    """Seconds of the fastest step in the middle of a run."""

    step: float
    nan: float
    noise: float


@dataclass
class Clock:
    """Time inside the model, the search for NaN, and the noise."""

    clock: Callable[[], float]
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, what: str) -> Any:
        began = self.clock()
        yield
        self.spent[what] = self.spent.get(what, 0.0) + self.clock() - began


class Sweeping:
    """A model: answers with a fresh tensor after a sweep through a buffer larger than a cache."""

    def __init__(self, x: Tensor, clock: Clock, sweep: bool = True) -> None:
        self.clock, self.x = clock, x
        self.buffer = torch.zeros(32_000_000 if sweep else 1)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        with self.clock.timed("model"):
            answer = x * (1.0 - sigma)
            self.buffer.add_(1.0)
            return answer


@contextmanager
def apart(clock: Clock) -> Any:
    """Time the search for NaN and the noise, wherever the runner does them."""
    kept = (Engine._watch, Engine.noise, Engine.brownian)

    def wrapped(method: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with clock.timed(what):
                return method(*args)

        return call

    Engine._watch = wrapped(kept[0], "nan")
    Engine.noise, Engine.brownian = wrapped(kept[1], "noise"), wrapped(kept[2], "noise")
    try:
        yield
    finally:
        Engine._watch, Engine.noise, Engine.brownian = kept


def grid(steps: int = STEPS) -> list[float]:
    """From 0.95, so that every coordinate is finite."""
    return [0.95 * (1 - i / steps) for i in range(steps + 1)]


def measure(name: str, x: Tensor, clock: Callable[[], float]) -> Cost:
    """Run ``name`` and time its steps."""
    meter = Clock(clock)
    marks: list[tuple[float, dict[str, float]]] = []

    def mark(*_: Any) -> None:
        marks.append((clock(), dict(meter.spent)))

    with apart(meter):
        gatekit.sample(Sweeping(x, meter), x, grid(), sampler=name, observers=[mark])
    steps: list[tuple[float, float, float]] = []
    for (began, before), (ended, after) in pairwise(marks[3:-1]):
        gone = {k: after.get(k, 0.0) - before.get(k, 0.0) for k in ("model", "nan", "noise")}
        steps.append((ended - began - sum(gone.values()), gone["nan"], gone["noise"]))
    return Cost(*(min(column) for column in zip(*steps, strict=True)))


@dataclass
class Traffic:
    """Of one step in the middle of a run, in tensors of the state's size."""

    calls: int = 0
    moved: float = 0.0
    least: float = 0.0


class Counter(TorchDispatchMode):
    """Counts calls, what they move, and what a step reads from outside and leaves behind."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.traffic, self.on = size, Traffic(), False
        self.made: set[tuple[int, int]] = set()
        self.read: set[tuple[int, int]] = set()
        self.asked = 0
        self.keep: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.on:
            return result
        taken = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        given = [a for a in tree_leaves(result) if isinstance(a, Tensor)]
        self.keep += [*taken, *given]  # so that no address is used twice
        allocates = func is torch.ops.aten.empty_like.default
        if func.is_view or allocates or not any(t.numel() > 1 for t in taken):
            return result
        self.traffic.calls += 1
        self.traffic.moved += sum(t.numel() for t in (*taken, *given)) / self.size
        for tensor in taken:
            place = tensor.untyped_storage().data_ptr()
            if (place, self.asked) not in self.made and tensor.untyped_storage().nbytes() > 64:
                self.read.add((place, self.asked))
        for tensor in given:
            place = tensor.untyped_storage().data_ptr()
            self.read.discard((place, self.asked))  # written, where ``out`` is given
            self.made.add((place, self.asked))
        return result


def count(name: str, x: Tensor) -> Traffic:
    """Count one step; the model, noise and the search for NaN apart."""
    x = x.flatten()[:4096].reshape(1, -1)  # too small for pieces
    counter = Counter(x.numel())
    handed: set[int] = set()
    middle = grid()[STEPS // 2]
    state: dict[str, Any] = {}

    def model(x: Tensor, sigma: float) -> Tensor:
        on, counter.on = counter.on, False
        if on:
            handed.add(x.untyped_storage().data_ptr())
        answer = x * (1.0 - sigma)
        counter.on, counter.asked = on or sigma == middle, counter.asked + 1
        return answer

    def mark(after: gatekit.State, record: gatekit.Record, _: Tensor) -> None:
        if record.sigma == middle:
            counter.on = False
            state["after"] = after

    kept = (Engine._watch, Engine.noise, Engine.brownian)

    def silent(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            on, counter.on = counter.on, False
            made = method(*args)
            counter.on = on
            return made

        return call

    Engine._watch, Engine.noise, Engine.brownian = map(silent, kept)
    try:
        with counter:
            gatekit.sample(model, x, grid(), sampler=name, observers=[mark])
    finally:
        Engine._watch, Engine.noise, Engine.brownian = kept
    after: gatekit.State = state["after"]
    left = [after.x, after.past[0].start, after.ahead, *after.memory.values()]
    stays = {t.untyped_storage().data_ptr() for t in left if isinstance(t, Tensor)}
    written = {place for place, _ in counter.made} & (stays | handed)
    counter.traffic.least = len(counter.read) + len(written)
    return counter.traffic


if __name__ == "__main__":
    main()
