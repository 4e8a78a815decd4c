"""Passes of few tokens launched from Python and replayed as CUDA graphs, at A14B's size.

    python tests/bench/few_tokens.py [--json FILE] [--seconds 60]
    python tests/bench/few_tokens.py --tiny       # a rehearsal on the CPU; its times mean nothing

For 510 and 1,530 tokens, as it is and compiled, random weights in bf16, Q2_K (values in Q3_K) and
Q5_K: milliseconds of a pass launched and replayed by ``passes.Passes``, how far outputs differ,
what capturing takes and keeps, and times of GGUF over those of bf16. Then passes are captured while
another thread copies to the device and allocates there, as one does that reads weights. A part that
fails is recorded, and the next one runs; parts begin while there is time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_clock import median
from graph_recorder import Recorder
from torch import Tensor, nn
from wan_block import A14B, TEXT, TINY, Blocks, Size, in_blocks, random_blocks

from gatekit import Execution
from gatekit_wan22 import attention, compiling, passes
from gatekit_wan22.memory import give_back
from gatekit_wan22.model import empty_transformer
from gatekit_wan22.sizes import TransformerSizes

LATENTS = ((1, 34, 60), (3, 34, 60))  # of 510 and 1,530 tokens
TINY_LATENTS = ((1, 6, 8), (3, 6, 8))
FP32 = ("time_embedder", "time_proj", "scale_shift_table", "norm")
REPEATS = 7
MIB = 1 << 20


class Bench:
    """Models of one size and what was found."""

    def __init__(self, tiny: bool, seconds: float, out: Path | None) -> None:
        self.tiny, self.out, self.began = tiny, out, time.monotonic()
        self.until = self.began + seconds
        self.device, self.size = ("cpu", TINY) if tiny else ("cuda", A14B)
        self.latents = TINY_LATENTS if tiny else LATENTS
        self.found: dict[str, Any] = {"torch": torch.__version__, "device": self.device}
        if not tiny:
            self.found["device"] = torch.cuda.get_device_name()

    def say(self, text: str) -> None:
        """Print with the seconds since the start."""
        print(f"[{time.monotonic() - self.began:5.1f}] {text}", flush=True)

    def part(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Run one part, record what it found or why it failed, and write the file."""
        if time.monotonic() > self.until:
            self.found[name] = {"left out": "time is up"}
        else:
            try:
                self.found[name] = work()
            except Exception as error:
                traceback.print_exc(limit=5)
                self.found[name] = {"error": f"{type(error).__name__}: {error}"}
        facts = self.found[name].items()
        line = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in facts)
        self.say(f"{name}: {line}")
        if self.out is not None:
            self.out.write_text(json.dumps(self.found, indent=1) + "\n")

    def wait(self) -> None:
        """Until the device has done all it was asked for."""
        if not self.tiny:
            torch.cuda.synchronize()

    def ms(self, work: Callable[[], object]) -> float:
        """Median of passes from an idle device on, each waited for."""
        if not self.tiny:
            return 1e3 * median(work, REPEATS)
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)

    def held(self) -> tuple[float, float]:
        """MiB allocated on the device, and kept by torch."""
        if self.tiny:
            return 0.0, 0.0
        self.wait()
        return torch.cuda.memory_allocated() / MIB, torch.cuda.memory_reserved() / MIB


def transformers(bench: Bench, layers: int) -> dict[str, Any]:
    """The model in bf16 and with its blocks in two GGUF types; the rest is shared."""
    size, device = bench.size, bench.device
    blocks = random_blocks(size, layers, torch.bfloat16, device, 0)
    plain = whole(size, layers, device)
    found = {"bf16": with_blocks(plain, blocks)}
    for kind in ("Q2_K", "Q5_K"):
        v = "Q3_K" if kind == "Q2_K" else None
        found[kind] = with_blocks(plain, in_blocks(blocks, kind, v))
    return found


def whole(size: Size, layers: int, device: str) -> Any:
    """A model of random weights but for its blocks, which have none."""
    sizes = TransformerSizes(size.dim, size.ffn, layers, 16, 16, 4096 if size is A14B else 64)
    model = empty_transformer(sizes)
    model.rope.to(device)
    generator = torch.Generator(device).manual_seed(1)
    for name, p in list(model.named_parameters()):
        if name.startswith("blocks."):
            continue
        scale = p[0].numel() ** -0.5 if p.ndim > 1 else 0.3
        value = torch.randn(p.shape, generator=generator, device=device) * scale
        dtype = torch.float32 if any(part in name for part in FP32) else torch.bfloat16
        owner, _, leaf = name.rpartition(".")
        made = nn.Parameter(value.to(dtype), requires_grad=False)
        model.get_submodule(owner).register_parameter(leaf, made)
    return model


def with_blocks(model: Any, blocks: Blocks) -> Any:
    """The same model with these blocks."""
    import copy

    twin = copy.copy(model)
    twin._modules = {**model._modules, "blocks": blocks.blocks}
    return twin


def inputs(bench: Bench, latent: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random input, time and text of one pass."""
    generator = torch.Generator(bench.device).manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        made = torch.randn(*shape, generator=generator, device=bench.device)
        return made.to(torch.bfloat16)

    time = torch.full((1,), 900.0 - 50 * seed, dtype=torch.float64, device=bench.device)
    return normal(1, 16, *latent), time, normal(1, TEXT, 4096 if bench.size is A14B else 64)


def difference(found: Tensor, wanted: Tensor) -> float:
    """Length of the difference over that of what is wanted; an error where that is no number."""
    value = float((found.float() - wanted.float()).norm() / wanted.float().norm())
    if not value < float("inf"):
        raise ArithmeticError("an output is not finite")
    return value


def more(before: tuple[float, float], after: tuple[float, float]) -> tuple[float, float]:
    """By how much each is larger."""
    return after[0] - before[0], after[1] - before[1]


def both_ways(
    bench: Bench, model: Any, latent: tuple[int, ...], compiled: bool, over: dict[str, Any] | None
) -> dict[str, Any]:
    """One model, launched and replayed; ``over`` are the figures of bf16."""
    attention.use_backend(model, "native")
    compiling.use_compiled(model, compiled)
    runs = passes.Passes()
    one, other = (inputs(bench, latent, seed) for seed in (1, 2))

    def launched(given: tuple[Tensor, ...]) -> Tensor:
        return passes.launch(model, *given)

    def replayed(given: tuple[Tensor, ...]) -> Tensor:
        how = Execution("native", compiled, replayed=True)
        return runs.run(model, bench.device, how, *given)

    began = time.perf_counter()
    wanted = [launched(given) for given in (one, other)]
    bench.wait()
    facts: dict[str, Any] = {"first two passes, s": time.perf_counter() - began}
    facts["launched, ms"] = bench.ms(lambda: launched(one))
    replayed(one)
    before, began = bench.held(), time.perf_counter()
    found = [replayed(one)]
    bench.wait()
    facts["capturing and the pass, s"] = time.perf_counter() - began
    after = bench.held()
    facts["graphs"] = runs.graphs
    if not runs.graphs:
        raise RuntimeError("it was not captured; the warning above says why")
    facts["allocated, MiB"], facts["reserved, MiB"] = (
        b - a for a, b in zip(before, after, strict=True)
    )
    facts["replayed, ms"] = bench.ms(lambda: replayed(one))
    found.append(replayed(other))
    pairs = list(zip(found, wanted, strict=True))
    facts["difference"] = max(difference(a, b) for a, b in pairs)
    facts["same bits"] = all(torch.equal(a, b) for a, b in pairs)
    facts["launched twice, difference"] = difference(launched(one), wanted[0])
    if over is not None and "replayed, ms" in over:
        for way in ("launched", "replayed"):
            facts[f"over bf16, {way}"] = facts[f"{way}, ms"] / over[f"{way}, ms"]
    runs.forget()
    give_back(bench.device)
    facts["left allocated, MiB"], facts["left reserved, MiB"] = more(before, bench.held())
    return facts


@contextlib.contextmanager
def busy(device: str) -> Iterator[dict[str, Any]]:
    """Another thread that allocates, copies and waits on the device all the while."""
    told: dict[str, Any] = {"copies beside": 0}
    stop = threading.Event()

    def work() -> None:
        try:
            cuda = device != "cpu"
            source = torch.ones(16 << 20, dtype=torch.uint8, pin_memory=cuda)
            stream = torch.cuda.Stream() if cuda else None
            kept: list[Tensor] = []
            while not stop.is_set():
                with torch.cuda.stream(stream) if cuda else contextlib.nullcontext():
                    kept.append(torch.empty_like(source, device=device))
                    kept[-1].copy_(source, non_blocking=True)
                    if stream is not None:
                        event = torch.cuda.Event()
                        event.record(stream)
                        event.synchronize()
                kept = kept[-8:]
                told["copies beside"] += 1
        except Exception as error:
            told["thread failed"] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


def beside(bench: Bench, model: Any) -> dict[str, Any]:
    """Several captures while another thread uses the device."""
    attention.use_backend(model, "native")
    compiling.use_compiled(model, False)
    runs, worst = passes.Passes(), 0.0
    how = Execution("native", replayed=True)
    with busy(bench.device) as told:
        for latent in bench.latents:
            for seed in range(4):
                given = inputs(bench, latent, seed)
                found = runs.run(model, bench.device, how, *given)
                worst = max(worst, difference(found, passes.launch(model, *given)))
    facts = {"graphs": runs.graphs, "difference": worst, **told}
    runs.forget()
    return facts


def main() -> None:
    """Parse the command line and run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="no part begins after so many")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal on the CPU")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny rehearses on the CPU")
    bench = Bench(args.tiny, args.seconds, args.json)
    if args.tiny:
        passes.capture_on = lambda device: Recorder()
        compiling.BACKEND = "aot_eager"
    with torch.no_grad():
        models = transformers(bench, 2 if args.tiny else 40)
        bench.say("models made")
        for compiled in (False, True):
            for latent in bench.latents:
                tokens = latent[0] * latent[1] * latent[2] // 4
                base: dict[str, Any] | None = None
                for name, model in models.items():
                    label = f"{tokens} tokens, {name}, {'compiled' if compiled else 'as it is'}"
                    bench.part(
                        label,
                        lambda m=model, lat=latent, c=compiled, b=base: both_ways(
                            bench, m, lat, c, b
                        ),
                    )
                    base = base or bench.found[label]
            if not compiled:
                bench.part("beside a thread that copies", lambda: beside(bench, models["Q2_K"]))


if __name__ == "__main__":
    main()
