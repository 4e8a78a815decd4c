"""The GGUF kernels on a GPU: right first, then how fast, against what the memory allows.

    python tests/bench/gguf_kernels.py [--json FILE] [--seconds 140]
    TRITON_INTERPRET=1 python tests/bench/gguf_kernels.py --rehearse

1. Every type, random bytes (scales that are NaN or infinite too): float32 bit for bit as gguf-py,
   bf16 and fp16 as torch rounds that. A difference ends the run with exit code 1.
2. The copy rate of the device.
3. All 400 matrices of one A14B expert, dequantised to bf16, for each type and several launches,
   beside the time that reading the blocks and writing the weights takes at the copy rate. Q2_K as
   files have it, with v in Q3_K. Then torch's operations, and launches from Python.
4. y = x W^T: fused and dequantised-then-multiplied, beside torch's product with weights in bf16,
   for 1, 64, 510, 4,590 and 32,760 tokens; for few tokens several tiles.

Weights and results rotate through buffers larger than the cache together. Sections for which the
time is up are left out, and named.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGMLQuantizationType
from gpu_clock import copy_rate, median, seconds

from gatekit_wan22.blocks import DECODERS
from gatekit_wan22.dequantise import _decode
from gatekit_wan22.kernels.expand import expand
from gatekit_wan22.kernels.kinds import KINDS
from gatekit_wan22.kernels.product import product, step_of

DIM, FFN, LAYERS = 5120, 13824, 40
LAUNCHES = [(256, 4), (128, 4), (512, 4), (128, 2), (256, 2), (256, 8), (512, 8), (1024, 8)]
TILES = {  # m, n, parts, warps
    1: [(16, 16, 2, 4), (16, 32, 1, 4), (16, 32, 4, 4), (16, 16, 4, 2)],
    64: [(64, 32, 2, 4), (64, 32, 4, 4), (64, 64, 4, 8)],
    510: [(128, 64, 1, 8), (64, 64, 1, 8)],
}
MANY = (510, 4590, 32760)


class Bench:
    """Sizes, buffers and findings of one run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.small = args.rehearse
        self.device = torch.device("cpu" if self.small else "cuda")
        self.dtype = torch.float16 if self.small else torch.bfloat16
        self.dim, self.ffn = (256, 512) if self.small else (DIM, FFN)
        self.until = time.monotonic() + args.seconds
        self.sets = 1 if self.small else 4
        largest = self.dim * self.ffn
        self.outs = [self.empty(largest) for _ in range(1 if self.small else 3)]
        self.found: dict[str, Any] = {"left out": []}

    def empty(self, *shape: int) -> torch.Tensor:
        """New memory in the compute type."""
        return torch.empty(*shape, dtype=self.dtype, device=self.device)

    def late(self, what: str) -> bool:
        """Whether the time is up; then notes what is left out."""
        if time.monotonic() < self.until:
            return False
        self.found["left out"].append(what)
        return True

    def layer(self, name: str, v: str | None = None) -> list[tuple[str, int, int]]:
        """(type, rows, columns) of the ten matrices of a block."""
        square = [(v if v and i % 4 == 2 else name, self.dim, self.dim) for i in range(8)]
        if self.small:
            return square[2:4]
        return [*square, (name, self.ffn, self.dim), (name, self.dim, self.ffn)]

    def blocks(self, name: str, rows: int, columns: int) -> torch.Tensor:
        """Random bytes, the top exponent bit of every half cleared, so that scales are finite."""
        kind = KINDS[name]
        count = rows * columns // kind.weights
        data = torch.randint(0, 256, (count, kind.size), dtype=torch.uint8, device=self.device)
        data[:, 1::2] &= 0xBF
        return data.view(-1)


def check(bench: Bench) -> dict[str, int]:
    """Weights whose bits differ, by type and result type: against gguf-py, rounded by torch."""
    wrong = {}
    types = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
    if bench.small:  # Triton's interpreter rounds to bf16 wrongly
        del types[torch.bfloat16]
    for name, kind in KINDS.items():
        rng = np.random.default_rng(kind.size)
        data = rng.integers(0, 256, (23 if bench.small else 40_961) * kind.size, np.uint8)
        with np.errstate(all="ignore"):
            exact = gguf.quants.dequantize(data, GGMLQuantizationType[name]).reshape(-1)
            for dtype, bits in types.items():
                wanted = torch.from_numpy(exact).to(dtype)
                out = torch.full_like(wanted, 7.0, device=bench.device)
                found = expand(torch.from_numpy(data).to(bench.device), kind, out).cpu()
                same = (found.view(bits) == wanted.view(bits)) | (found.isnan() & wanted.isnan())
                wrong[f"{name} {str(dtype).removeprefix('torch.')}"] = int((~same).sum())
    return wrong


def dequantising(bench: Bench, rate: float, aimed: bool) -> Iterable[list[str]]:
    """Rows of a table: an expert's matrices, by type and launch; those aimed at, or the others."""
    yield ["matrices of one expert", "launch", "ms", "bound", "ratio"]
    mixes = {"Q2_K, v in Q3_K": bench.layer("Q2_K", "Q3_K"), "Q5_K": bench.layer("Q5_K")}
    others = {n: bench.layer(n) for n in (("Q8_0",) if bench.small else KINDS) if n not in mixes}
    for title, layer in (mixes if aimed else others).items():
        stored = [
            (bench.blocks(name, rows, columns), KINDS[name], rows * columns)
            for _ in range(bench.sets)
            for name, rows, columns in layer
        ]
        moved = sum(b.numel() + count * bench.dtype.itemsize for b, _, count in stored)
        scale = LAYERS / bench.sets  # from the matrices that were made to an expert's

        def run(launch: tuple[int, int], stored: list[Any] = stored) -> None:
            for i, (blocks, kind, count) in enumerate(stored):
                out = bench.outs[i % len(bench.outs)][:count]
                expand(blocks, kind, out, units=launch[0], warps=launch[1])

        launches = LAUNCHES if aimed else LAUNCHES[:3]
        for launch in launches[:1] if bench.small else launches:
            if bench.late(f"{title} {launch}"):
                break
            took = seconds(lambda launch=launch: run(launch), bench.device)
            bound = moved / rate
            yield [
                title, f"{launch[0]} units, {launch[1]} warps", f"{took * scale * 1e3:.2f}",
                f"{bound * scale * 1e3:.2f}", f"{took / bound:.2f}",
            ]  # fmt: skip
        if aimed and not bench.small and not bench.late(f"{title} from Python, by torch"):
            took = median(lambda: run(LAUNCHES[0]), 3)
            yield [title, "launched from Python", f"{took * scale * 1e3:.2f}", "", ""]
            name = layer[0][0]
            blocks, kind, count = stored[0]
            exact = bench.outs[0][:count].view(-1, kind.weights)

            def by_torch(blocks: Any = blocks, kind: Any = kind, name: str = name) -> None:
                _decode(blocks.view(-1, kind.size), DECODERS[name], exact)  # noqa: B023

            by_torch()
            took = median(by_torch, 3) * sum(c for _, _, c in stored) / count
            yield [title, "torch's operations", f"{took * scale * 1e3:.0f}", "", ""]


def products(bench: Bench) -> Iterable[list[str]]:
    """Rows of a table: one product, by tokens, type and way."""
    yield ["tokens", "W", "type", "way", "us", "over bf16"]
    shapes = [(bench.dim, bench.dim), (bench.ffn, bench.dim), (bench.dim, bench.ffn)]
    for rows, columns in shapes:
        dense = [bench.empty(rows, columns).normal_(std=0.02) for _ in range(bench.sets)]
        scratch = bench.outs[0][: rows * columns]
        for tokens in (2, 5) if bench.small else sorted({*TILES, *MANY}):
            x = bench.empty(tokens, columns).normal_(std=0.01)
            size = f"{rows}x{columns}"
            if bench.late(f"products of {tokens} tokens with {size}"):
                return
            repeats = 3 if tokens > 1000 else 7
            base = seconds(lambda: [x @ w.t() for w in dense], bench.device, repeats)  # noqa: B023
            per = 1e6 / bench.sets
            yield [str(tokens), size, "bf16", "torch", f"{base * per:.1f}", "1.00"]
            for name in ("Q2_K",) if bench.small else ("Q2_K", "Q5_K"):
                kind = KINDS[name]
                stored = [bench.blocks(name, rows, columns) for _ in range(bench.sets)]

                def decoded(stored: Any = stored, kind: Any = kind, x: Any = x) -> None:
                    for blocks in stored:
                        x @ expand(blocks, kind, scratch).view(rows, columns).t()  # noqa: B023

                took = seconds(decoded, bench.device, repeats)
                way = [str(tokens), size, name]
                yield [*way, "decoded first", f"{took * per:.1f}", f"{took / base:.2f}"]
                for m, n, parts, warps in tiles(bench, kind, tokens, rows, columns):
                    tile = {"m": m, "n": n, "parts": parts, "warps": warps, "stages": 1}

                    def fused(stored: Any = stored, kind: Any = kind, tile: Any = tile) -> None:
                        for blocks in stored:
                            product(x, blocks, kind, rows, tile=tile)  # noqa: B023

                    took = seconds(fused, bench.device, repeats)
                    called = f"fused {m}x{n}, {parts} parts, {warps} warps"
                    yield [*way, called, f"{took * per:.1f}", f"{took / base:.2f}"]


def tiles(bench: Bench, kind: Any, tokens: int, rows: int, columns: int) -> list[Any]:
    """The tiles worth trying: all for the square matrix, then the first one."""
    if bench.small:
        return [(16, 32, 1, 4), (16, 32, 2, 4)][: 2 if columns > bench.dim else 1]
    steps = columns // kind.weights // step_of(kind, columns // kind.weights)
    fit = [t for t in TILES.get(tokens, ()) if steps % t[2] == 0]
    return fit if rows == columns else fit[:1]


def agreement(bench: Bench) -> dict[str, float]:
    """Relative error of the fused product against float64 on the same rounded weights."""
    found = {}
    rows, columns, tokens = 128, 1024, 19
    for name, kind in KINDS.items():
        blocks = bench.blocks(name, rows, columns)
        w = expand(blocks, kind, bench.empty(rows * columns)).view(rows, columns).double()
        x = bench.empty(tokens, columns).normal_(std=0.01)
        exact = x.double() @ w.t()
        found[name] = float((product(x, blocks, kind, rows) - exact).norm() / exact.norm())
    return found


def show(rows: Iterable[list[str]]) -> list[list[str]]:
    """Print rows as they come; returns them."""
    kept = []
    for row in rows:
        kept.append(row)
        print("  ".join(f"{cell:>{28 if len(cell) > 12 else 12}}" for cell in row), flush=True)
    return kept


def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=140, help="when to begin nothing more")
    parser.add_argument("--rehearse", action="store_true", help="tiny, by Triton's interpreter")
    bench = Bench(args := parser.parse_args())
    found = bench.found
    found["device"] = "cpu" if bench.small else torch.cuda.get_device_name()
    found["torch"] = torch.__version__
    found["wrong"], found["fused error"] = check(bench), agreement(bench)
    found["copy rate"] = rate = copy_rate(bench.device, 1 << (20 if bench.small else 30))
    wrong = {name: count for name, count in found["wrong"].items() if count}
    worst = max(found["fused error"].values())
    right = not wrong and worst < 1e-2  # NaN is not below
    print(f"{found['device']}, torch {found['torch']}; copy {rate / 1e12:.3f} TB/s")
    print(f"{len(found['wrong'])} checks of bits; different: {wrong or 'none'}")
    print(f"fused product, largest relative error {worst:.1e}: {found['fused error']}", flush=True)
    if right:
        found["dequantise"] = show(dequantising(bench, rate, aimed=True))
        found["products"] = show(products(bench))
        found["other types"] = show(dequantising(bench, rate, aimed=False))
    print("left out, as the time was up:", found["left out"] or "nothing")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    sys.exit(not right)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
