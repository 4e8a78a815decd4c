"""What a step costs beside the model, per sampler, and what the bytes that must move would cost.

    python tests/bench/overhead.py [SAMPLER ...] [--device cuda] [--shape 16 21 60 104]

Each sampler runs a phase over a model that is timed and taken off. Before it answers, the model
sweeps through a buffer larger than any cache, as a real one does, so that nothing of the step
before is in a cache. Steps count from the fourth of a run on; of five runs, each between two
measurements of the bound, the one with the median ratio is printed.

- ms: runner and sampler, without model, noise, and the search for NaN;
- bound: the bytes that must move, at the bandwidth with which tensors of this size that are in no
  cache are copied, before or after the run, whichever is faster. What must move: every tensor that
  the step reads, once between two calls of the model, whatever its arithmetic reads; and every
  tensor that it leaves behind or hands to the model;
- NaN and noise: what is taken off for them;
- calls and moved: calls of torch a step over whole tensors, as a GPU gets them; of the tensors
  that they read and write, those that must move. On a CPU what is above that stays in the cache.

On a CPU with one thread, CPU time is measured, so that a busy machine does not count; else wall
time. The last column is an ESTIMATE for one H100: the larger of 5 microseconds a call, and the
bytes that the calls move at 2.97 TB/s.

On a GPU, events of its stream are measured: medians, with kernels loaded by the steps before. The
model there takes some milliseconds, and nobody watches the run, so the host is ahead, as with a
real model, and "ms" is what the GPU did. An event takes a few microseconds itself. The last column
is the same for a run that an observer watches, the search for NaN included: before an observer sees
a step the host waits for the prediction, and the GPU then waits for the host.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from stopwatch import Stopwatch, stopwatch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import gatekit
from gatekit.stage import Engine

STEPS, RUNS, GPU_BANDWIDTH, GPU_LAUNCH = 16, 5, 2.97e12, 5e-6
BUFFER = 32_000_000  # elements of the buffer the model sweeps through


def main(arguments: list[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("samplers", nargs="*", help="default: all with fixed steps")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", nargs="+", type=int, default=[16, 21, 60, 104])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    watch, gpu = stopwatch(device, args.threads), device.type == "cuda"
    x = torch.randn(1, *args.shape, generator=torch.Generator().manual_seed(0)).to(device)
    known = gatekit.list_samplers()
    names = args.samplers or [
        n for n, c in known.items() if not c.adaptive and not n.startswith("k_diffusion/")
    ]
    size = x.numel() * x.element_size()
    where = torch.cuda.get_device_name(device) if gpu else f"CPU, {args.threads} thread(s)"
    print(f"{'x'.join(map(str, args.shape))} float32, {size / 1e6:.2f} MB; {where}; {watch.name}\n")
    last = "watched ms" if gpu else "GPU ms"
    print(f"| sampler | ms | bound ms | ratio | NaN ms | noise ms | calls | moved | {last} |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios: list[float] = []
    copies = Copies(x, watch)
    for name in names:
        traffic = count(name, x)
        runs: list[tuple[float, float, Cost]] = []
        before = copies.bandwidth()
        for _ in range(RUNS):
            cost, after = measure(name, x, watch), copies.bandwidth()
            bound = traffic.least * size / max(before, after)
            runs.append((cost.step / bound, bound, cost))
            before = after
        ratio, bound, cost = sorted(runs, key=lambda run: run[0])[RUNS // 2]
        ratios.append(ratio)
        if gpu:
            other = measure(name, x, watch, observed=True)
            beside = other.step + other.nan
        else:
            beside = max(traffic.calls * GPU_LAUNCH, traffic.moved * size / GPU_BANDWIDTH)
        digits = 3 if gpu else 1
        print(
            f"| `{name}` | {cost.step * 1e3:.{digits}f} | {bound * 1e3:.{digits}f} | "
            f"{ratio:.2f} | {cost.nan * 1e3:.{digits}f} | {cost.noise * 1e3:.1f} | "
            f"{traffic.calls} | {traffic.least:.0f} of {traffic.moved:.0f} | {beside * 1e3:.2f} |",
            flush=True,
        )
    speeds = [speed / 1e9 for speed in copies.found]
    print(f"\nlargest ratio {max(ratios):.2f}, aim 2; copies at {min(speeds):.1f} to ", end="")
    print(f"{max(speeds):.1f} GB/s read and written")


class Copies:
    """Copies of tensors like ``x``, each cold.

    On a GPU a round of copies is timed as a whole, as one takes little more than an event.
    """

    def __init__(self, x: Tensor, watch: Stopwatch) -> None:
        self.watch, self.size = watch, x.numel() * x.element_size()
        ring = [torch.zeros_like(x) for _ in range(min(max(4, int(400e6 / self.size)), 64))]
        pairs = list(zip(ring[::2], ring[1::2], strict=False))
        self.batches = [pairs] if x.device.type == "cuda" else [[pair] for pair in pairs]
        self.found: list[float] = []

    def bandwidth(self) -> float:
        """Bytes read and written a second."""
        marks: list[tuple[Any, Any, int]] = []
        for _ in range(3):
            for batch in self.batches:
                began = self.watch.mark()
                for source, target in batch:
                    target.copy_(source)
                marks.append((began, self.watch.mark(), len(batch)))
        timed = marks[len(self.batches) :]  # the first round warms up
        seconds = self.watch.typical(self.watch.seconds(a, b) / n for a, b, n in timed)
        self.found.append(2 * self.size / seconds)
        return self.found[-1]


@dataclass
class Cost:
    """Seconds of a step in the middle of a run."""

    step: float
    nan: float
    noise: float


@dataclass
class Timeline:
    """What was timed apart, in order: a name, and when it began and ended."""

    watch: Stopwatch
    spans: list[tuple[str, Any, Any]] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Time what is done inside."""
        began = self.watch.mark()
        yield
        self.spans.append((what, began, self.watch.mark()))

    def steps(self, nfe: int) -> list[Cost]:
        """Each step from its first call of the model to the next step's; the last one lacks."""
        calls = [i for i, (what, _, _) in enumerate(self.spans) if what == "model"][::nfe]
        found: list[Cost] = []
        for here, there in pairwise(calls):
            gone = {"model": 0.0, "nan": 0.0, "noise": 0.0}
            for what, began, ended in self.spans[here:there]:
                gone[what] += self.watch.seconds(began, ended)
            whole = self.watch.seconds(self.spans[here][1], self.spans[there][1])
            found.append(Cost(whole - sum(gone.values()), gone["nan"], gone["noise"]))
        return found


class Sweeping:
    """A model: answers with a fresh tensor after sweeps through a buffer larger than a cache."""

    def __init__(self, x: Tensor, timeline: Timeline) -> None:
        self.timeline = timeline
        self.sweeps = 60 if x.device.type == "cuda" else 1  # 5 ms, for the host to be ahead
        self.buffer = torch.zeros(BUFFER, device=x.device)

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        with self.timeline.timed("model"):
            answer = x * (1.0 - sigma)
            for _ in range(self.sweeps):
                self.buffer.add_(1.0)
            return answer


@contextmanager
def apart(timeline: Timeline) -> Iterator[None]:
    """Time the search for NaN and the noise, wherever the runner does them."""
    kept = (Engine._watch, Engine.noise, Engine.brownian)

    def wrapped(method: Callable[..., Any], what: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            with timeline.timed(what):
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


def measure(name: str, x: Tensor, watch: Stopwatch, observed: bool = False) -> Cost:
    """Run ``name`` and time its steps."""
    observers = [lambda *_: None] if observed else []
    nfe = gatekit.list_samplers()[name]().nfe_per_step
    timeline = Timeline(watch)
    with apart(timeline):
        gatekit.sample(Sweeping(x, timeline), x, grid(), sampler=name, observers=observers)
    steps = timeline.steps(nfe)[3:-1]
    return Cost(*(watch.typical(getattr(s, of) for s in steps) for of in ("step", "nan", "noise")))


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
    x = x.flatten()[:4096].reshape(1, -1).cpu()  # too small for pieces
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
