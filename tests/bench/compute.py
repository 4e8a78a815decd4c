"""fp8, attention backends and compiled blocks of A14B's size: how fast, and how exact.

    python tests/bench/compute.py [--json FILE] [--seconds 150] [--only PART ...]
    python tests/bench/compute.py --tiny          (a small size, on the CPU; times mean nothing)

steps      what is between the products, each alone: milliseconds, those that its bytes take at the
           rate of a copy, the error against torch's operations, and the time of those, compiled
products   y = x W^T in bf16 and in fp8, and each one's relative error against float32
attention  every backend that is here: time, and relative error against float32
blocks     one block: bf16, fp8, Q2_K, each as it is and compiled; the error of what it adds to x
kernels    of a compiled block at the largest number of tokens, what each kind of kernel takes
compiling  in new processes: seconds cold and from the disk's cache, compilations at a switch

Weights and inputs are random. A part that fails is recorded, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_clock import copy_rate, median
from torch import Tensor
from wan_block import (
    A14B,
    TEXT,
    TINY,
    decoded,
    in_blocks,
    in_fp8,
    inputs,
    random_blocks,
    to_float32,
)

from gatekit import compute_capability
from gatekit_wan22 import attention, attention_flash4, attention_fp8, attention_own, compiling
from gatekit_wan22 import heads as steps_of
from gatekit_wan22.fp8 import gelu_quantised, new_fp8_linear, quantised, rows_quantised

ROWS = 512  # of x, of which errors are taken
FP8_TOO = "fp8, attention too"
FLASH = "bf16, flash4"
Row = dict[str, Any]


class Bench:
    """Sizes and clock of one run."""

    def __init__(self, tiny: bool, seconds: float) -> None:
        self.tiny, self.size = tiny, TINY if tiny else A14B
        self.device = "cpu" if tiny else "cuda"
        self.until = time.monotonic() + seconds
        self.capability = compute_capability(self.device)
        self.backend = attention.choose("auto", self.device, "bf16", self.capability)
        self.tokens = [f * h * w for f, h, w in self.size.grids]
        self.left_out: list[str] = []

    def late(self, what: str) -> bool:
        """Whether the time is up; then notes what is left out."""
        if time.monotonic() < self.until:
            return False
        self.left_out.append(what)
        return True

    def ms(self, work: Callable[[], object], tokens: int) -> float:
        """Milliseconds of ``work`` as it is launched."""
        work()
        if self.tiny:
            began = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - began)
        torch.cuda.synchronize()
        return 1e3 * median(work, 5 if tokens > 10_000 else 11)

    def normal(self, *shape: int, dtype: Any = torch.float32) -> Tensor:
        """Random numbers on the device."""
        return torch.randn(*shape, device=self.device).to(dtype)


def relative(found: Tensor, wanted: Tensor) -> float:
    """Length of the difference over the length of what is wanted."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def steps(bench: Bench) -> Iterator[Row]:
    """Norm and rotation of heads, rounding to e4m3, GELU, at the largest number of tokens."""
    dim, ffn, tokens = bench.size.dim, bench.size.ffn, bench.tokens[0]
    heads, bf16 = dim // 128, torch.bfloat16
    *_, rotary = inputs(bench.size, bench.size.grids[0], bf16, bench.device)
    weight = (1 + 0.3 * bench.normal(dim)).to(bf16)
    norm = steps_of.Norm(weight, 1e-6, *rotary)
    x, wide = bench.normal(1, tokens, dim, dtype=bf16), bench.normal(tokens, ffn, dtype=bf16)
    total = -(-tokens // attention_fp8.TILE) * attention_fp8.TILE

    def rounds(x: Tensor, how: Any, centred: bool, own: bool) -> Any:
        by = steps_of.in_fp8 if own else steps_of.reference_fp8
        return by(x, heads, total, how, centred)

    def gelu(x: Tensor) -> Any:
        return quantised(torch.nn.functional.gelu(x, approximate="tanh"))

    ways: dict[str, tuple[float, Tensor, Callable[[Tensor], Any], Callable[[Tensor], Any]]] = {
        "rotated": (4, x, lambda x: steps_of.rotated(x, heads, norm),
                    lambda x: steps_of.reference(x, heads, norm)),
        "queries in fp8": (3, x, lambda x: rounds(x, norm, False, True),
                           lambda x: rounds(x, norm, False, False)),
        "keys in fp8": (3, x, lambda x: rounds(x, norm, True, True),
                        lambda x: rounds(x, norm, True, False)),
        "values in fp8": (5, x, lambda x: rounds(x, None, False, True),
                          lambda x: rounds(x, None, False, False)),
        "rows in fp8": (3, x[0], rows_quantised, quantised),
        "GELU in fp8": (3, wide, gelu_quantised, gelu),
    }  # fmt: skip
    rate = 1.0 if bench.tiny else copy_rate(x.device, 2**30)
    for name, (moved, given, own, other) in ways.items():
        if bench.late(f"step {name}"):
            return
        compiled = torch.compile(other, fullgraph=True, dynamic=False, backend=backend(bench))
        took = bench.ms(lambda: own(given), tokens)  # noqa: B023
        bound = 1e3 * moved * given.numel() / rate
        yield {
            "step": name, "ms": took, "copy ms": bound, "over copy": took / bound,
            "compiled ms": bench.ms(lambda: compiled(given), tokens),  # noqa: B023
            "difference": relative(number(own(given)), number(other(given))),
        }  # fmt: skip


def number(found: Any) -> Tensor:
    """What a step gave, in float32: as it is, or by its scales."""
    return found if isinstance(found, Tensor) else found[0].float() * found[1]


def products(bench: Bench) -> Iterator[Row]:
    """One matrix, by tokens and precision."""
    dim, ffn = bench.size.dim, bench.size.ffn
    bf16 = torch.bfloat16
    for rows, columns in ((dim, dim), (ffn, dim), (dim, ffn)):
        w = bench.normal(rows, columns) * columns**-0.5
        x = bench.normal(max(bench.tokens), columns)
        exact = x[:ROWS] @ w.t()  # torch's default: float32 throughout, no TF32
        layer, plain = new_fp8_linear(*quantised(w), None), w.to(bf16)
        x = x.to(bf16)
        fused = torch.compile(layer, fullgraph=True, dynamic=False, backend=backend(bench))
        errors = {
            "bf16": relative(x[:ROWS] @ plain.t(), exact),
            "fp8": relative(layer(x[:ROWS]), exact),
        }
        for tokens in bench.tokens[:2]:
            if bench.late(f"products of {rows}x{columns}, {tokens} tokens"):
                return
            given = x[:tokens]
            q, scale = quantised(given)
            ways: dict[str, Callable[[], object]] = {
                "bf16": lambda: given @ plain.t(),  # noqa: B023
                "fp8, x quantised before": lambda: multiplied(layer, q, scale, True),  # noqa: B023
                "the same, exact sums": lambda: multiplied(layer, q, scale, False),  # noqa: B023
                "fp8": lambda: layer(given),  # noqa: B023
                "fp8 compiled": lambda: fused(given),  # noqa: B023
            }
            times = {name: bench.ms(work, tokens) for name, work in ways.items()}
            for name, took in times.items():
                yield {
                    "matrix": f"{rows}x{columns}", "tokens": tokens, "way": name, "ms": took,
                    "over bf16": took / times["bf16"],
                    "error": errors["bf16" if name == "bf16" else "fp8"],
                }  # fmt: skip
        exact_sums = relative(multiplied(layer, *quantised(x[:ROWS]), False), exact)
        yield {"matrix": f"{rows}x{columns}", "way": "fp8, exact sums", "error": exact_sums}


def multiplied(layer: Any, q: Tensor, scale: Tensor, fast: bool) -> Tensor:
    """The product alone, of what is quantised already."""
    return torch._scaled_mm(
        q, layer.q.t(), scale_a=scale, scale_b=layer.scale, out_dtype=torch.bfloat16,
        use_fast_accum=fast,
    )  # fmt: skip


def backend(bench: Bench) -> str:
    """What compiles: nothing, in a rehearsal."""
    return "aot_eager" if bench.tiny else "inductor"


def attentions(bench: Bench) -> Iterator[Row]:
    """Every backend that is here, with as many keys as queries, and with the text's."""
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    heads = bench.size.dim // 128
    for tokens, keys in ((bench.tokens[0],) * 2, (bench.tokens[1],) * 2, (bench.tokens[0], TEXT)):
        q = bench.normal(1, tokens, heads, 128, dtype=torch.bfloat16)
        k, v = (bench.normal(1, keys, heads, 128, dtype=torch.bfloat16) for _ in range(2))
        few = (t.transpose(1, 2)[:, :2].float() for t in (q[:, :ROWS], k, v))
        exact = torch.nn.functional.scaled_dot_product_attention(*few).transpose(1, 2)
        for name in attention.usable(bench.device, "bf16", bench.capability):
            if bench.late(f"attention {name}, {tokens} x {keys}"):
                return
            if name == "math" and tokens * keys > 10**8:
                continue  # its scores alone would be 80 GB
            row: Row = {"queries": tokens, "keys": keys, "backend": name}

            def work(name: str = name) -> Tensor:
                if own := attention_own.OWN.get(name):
                    return own.attend(q, k, v)  # noqa: B023
                called = AttentionBackendName(attention.BACKENDS[name].dispatch)
                return dispatch_attention_fn(q, k, v, backend=called)  # noqa: B023

            try:
                row["ms"] = bench.ms(work, tokens)
                row["error"] = relative(work()[:, :ROWS, :2], exact)
            except Exception as error:
                row["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
            yield row


def blocks(bench: Bench) -> Iterator[Row]:
    """One block: precision, storage, compiled or not."""
    bf16 = torch.bfloat16
    plain = random_blocks(bench.size, 1, bf16, bench.device, 0)
    stored = in_blocks(plain, "Q2_K", v="Q3_K")
    models = {
        "bf16": plain,
        "fp8": in_fp8(plain),
        "Q2_K": stored,
        "Q2_K in fp8": in_fp8(decoded(stored)),
    }
    wholes = {"bf16": plain, "fp8": plain, "Q2_K": decoded(stored), "Q2_K in fp8": decoded(stored)}
    names = ["bf16", "Q2_K", "fp8"]
    here = (bench.device, "fp8", bench.capability)
    if attention.lacking(attention_fp8.NAME, *here) is None:
        names.append(FP8_TOO)
        models[FP8_TOO], wholes[FP8_TOO] = models["fp8"], plain
    if attention.lacking(attention_flash4.NAME, bench.device, "bf16", bench.capability) is None:
        names.insert(1, FLASH)
        models[FLASH], wholes[FLASH] = plain, plain
    errors = block_errors(bench, models, wholes)
    for grid, tokens in zip(bench.size.grids, bench.tokens, strict=True):
        given = inputs(bench.size, grid, bf16, bench.device)
        base: dict[bool, float] = {}
        for name in names:
            for compiled in (False, True):
                if bench.late(f"block {name}{' compiled' * compiled}, {tokens} tokens"):
                    continue
                model, own = models[name], backend_of(bench, name)
                attention.use_backend(model, own)
                compiling.use_compiled(model, compiled)
                began = time.perf_counter()
                model(*given)
                if not bench.tiny:
                    torch.cuda.synchronize()
                first = time.perf_counter() - began
                took = bench.ms(lambda: model(*given), tokens)  # noqa: B023
                base.setdefault(compiled, took)
                yield {
                    "tokens": tokens, "block": name, "compiled": compiled,
                    "attention": own, "ms": took, "over bf16": took / base[compiled],
                    "over bf16 as it is": took / base[False], "first call s": first,
                    "error": errors[name],
                }  # fmt: skip
    yield {"block": "Q2_K in fp8", "error": errors["Q2_K in fp8"]}


KINDS = {
    "attention": "sdpa|[Ff]lash", "products": "nvjet|gemm|cutlass", "compiled": "^triton_",
    "own": "^(rotate|round|sum|largest|quantise|expand)_kernel",
}  # fmt: skip


def kernels(bench: Bench) -> Iterator[Row]:
    """Milliseconds of a block by kind of kernel, those of gatekit's own by name."""
    if bench.tiny:
        bench.left_out.append("kernels, which need a GPU")
        return
    bf16 = torch.bfloat16
    plain = random_blocks(bench.size, 1, bf16, bench.device, 0)
    models = {"bf16": plain, "fp8": in_fp8(plain)}
    if attention.lacking(attention_fp8.NAME, bench.device, "fp8", bench.capability) is None:
        models[FP8_TOO] = models["fp8"]
    given = inputs(bench.size, bench.size.grids[0], bf16, bench.device)
    for name, model in models.items():
        if bench.late(f"kernels of {name}"):
            return
        attention.use_backend(model, backend_of(bench, name))
        compiling.use_compiled(model, True)
        model(*given)
        took = profiled(lambda: model(*given), 3)  # noqa: B023
        yield {"block": name, "backend": backend_of(bench, name), **by_kind(took)}


def by_kind(took: dict[str, float]) -> dict[str, float]:
    """Times of kernels added up by ``KINDS``, gatekit's own by name, and all of them."""
    found = {"all": sum(took.values())}
    for kernel, ms in took.items():
        kind = next((k for k, names in KINDS.items() if re.search(names, kernel)), "others")
        kind = kernel if kind == "own" else kind
        found[kind] = found.get(kind, 0.0) + ms
    return found


def profiled(work: Callable[[], object], times: int) -> dict[str, float]:
    """Milliseconds of each kernel that some work runs, by name."""
    from torch.profiler import ProfilerActivity, profile

    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(times):
            work()
        torch.cuda.synchronize()
    found: dict[str, float] = {}
    for event in seen.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            each = event.self_device_time_total / times / 1e3
            found[event.name] = found.get(event.name, 0.0) + each
    return found


def backend_of(bench: Bench, name: str) -> str:
    """The attention that a block is measured with."""
    named = {FP8_TOO: attention_fp8.NAME, FLASH: attention_flash4.NAME}
    return named.get(name, bench.backend)


def block_errors(bench: Bench, models: Any, wholes: Any) -> dict[str, float]:
    """Error of what a block adds to x, against the same weights in float32, at 4,590 tokens."""
    grid = bench.size.grids[1]
    given = inputs(bench.size, grid, torch.bfloat16, bench.device)
    found: dict[str, float] = {}
    for name, model in models.items():
        exact = to_float32(wholes[name])
        attention.use_backend(exact, "native")
        attention.use_backend(model, backend_of(bench, name))
        x, text, *rest = given
        wanted = exact(x.float(), text.float(), *rest) - x.float()
        found[name] = relative(model(x, text, *rest).float() - x.float(), wanted)
    return found


def compiles(bench: Bench) -> Iterator[Row]:
    """The same process twice, from an empty cache and from what the first one left."""
    with tempfile.TemporaryDirectory() as folder:
        for state in ("cold", "warm"):
            if bench.late(f"compiling, {state}"):
                return
            command = [sys.executable, __file__, "--child", *(["--tiny"] if bench.tiny else [])]
            # Its kernels, and Triton's own, go where the test says; no user's cache helps.
            own = {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": f"{folder}/triton"}
            done = subprocess.run(
                command, env=os.environ | own, capture_output=True, text=True, timeout=300
            )
            if done.returncode:
                raise RuntimeError(done.stderr[-1500:])
            for row in json.loads(done.stdout.splitlines()[-1]):
                yield {"cache": state, **row}


def child(bench: Bench) -> list[Row]:
    """First calls of two experts' blocks, there and back, and with another attention backend."""
    from torch._dynamo.utils import counters

    grid, bf16 = bench.size.grids[1], torch.bfloat16
    given = inputs(bench.size, grid, bf16, bench.device)
    experts = [random_blocks(bench.size, 2, bf16, bench.device, seed) for seed in range(2)]
    rows: list[Row] = []

    def call(what: str, model: Any, backend: str) -> None:
        attention.use_backend(model, backend)
        compiling.use_compiled(model, True)
        before = counters["stats"]["unique_graphs"]
        began = time.perf_counter()
        model(*given)
        if not bench.tiny:
            torch.cuda.synchronize()
        took = time.perf_counter() - began
        rows.append(
            {
                "what": what, "first call s": took,
                "compilations": counters["stats"]["unique_graphs"] - before,
                "read from the cache": counters["inductor"]["fxgraph_cache_hit"],
                "breaks": sum(counters["graph_break"].values()),
            }
        )  # fmt: skip

    other = "math" if bench.tiny else "cudnn"
    for i, model in enumerate(experts):
        model(*given)  # libraries are loaded, so that only compiling is left to the first call
        call(f"two blocks of expert {i}", model, bench.backend)
    call("back to expert 0", experts[0], bench.backend)
    call("two blocks in Q2_K", in_blocks(experts[0], "Q2_K", v="Q3_K"), bench.backend)
    call(f"expert 0, attention {other}", experts[0], other)
    call(f"expert 1, attention {other}", experts[1], other)
    call(f"back to attention {bench.backend}", experts[1], bench.backend)
    return rows


PARTS = {
    "steps": steps, "products": products, "attention": attentions, "blocks": blocks,
    "kernels": kernels, "compiling": compiles,
}  # fmt: skip


def cell(value: Any) -> str:
    """One value for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=150, help="when to begin nothing more")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="a small size, on the CPU")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    bench = Bench(args.tiny, args.seconds)
    compiling.BACKEND = backend(bench)
    if args.child:
        print(json.dumps(child(bench)))
        return
    if not bench.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs a small size on the CPU")
    device = "cpu" if bench.tiny else torch.cuda.get_device_name()
    found: dict[str, Any] = {
        "device": device, "capability": bench.capability, "torch": torch.__version__,
        "attention": bench.backend, "failed": {}, "left out": bench.left_out,
    }  # fmt: skip
    print(f"{device}, torch {torch.__version__}, attention {bench.backend}", flush=True)
    for name in args.only:
        rows = found[name] = []
        print(f"\n{name}", flush=True)
        try:
            for row in PARTS[name](bench):
                rows.append(row)
                print("  " + ", ".join(f"{k} {cell(v)}" for k, v in row.items()), flush=True)
        except Exception as error:
            found["failed"][name] = traceback.format_exc()[-3000:]
            print(f"  failed: {type(error).__name__}: {str(error)[:500]}", flush=True)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    print("\nleft out:", bench.left_out or "nothing")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    sys.exit(bool(found["failed"]))


if __name__ == "__main__":
    with torch.no_grad():  # as a run has it
        main()
