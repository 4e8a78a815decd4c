"""GGUF blocks decoded on a CPU: this project's torch operations beside gguf-py's numpy code.

    python tests/bench/gguf_cpu.py [--size 5120] [--threads 1] [--json FILE]

A square matrix of each type to float32, both into new memory, in turn, again and again; of each
the fastest run counts, in time of the process's threads together. ``held`` is into memory that is
there already, as a layer decodes its weight.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from gatekit_wan22.blocks import DECODERS
from gatekit_wan22.dequantise import dequantise

REPEATS = 9


def fastest(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of each, run in turn."""
    found = dict.fromkeys(ways, float("inf"))
    for _ in range(REPEATS):
        for name, way in ways.items():
            began = time.process_time()
            way()
            found[name] = min(found[name], (time.process_time() - began) * 1e3)
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=5120)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--types", nargs="*", default=sorted(set(DECODERS) - {"Q8_K"}))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{args.size} x {args.size} to float32, {args.threads} threads, ms of CPU")
    print(f"{'':8}{'gguf-py':>10}{'gatekit':>10}{'ratio':>8}{'held':>10}{'ratio':>8}")
    table = {}
    for name in args.types:
        kind = GGMLQuantizationType[name]
        weights, size = GGML_QUANT_SIZES[kind]
        rng = np.random.default_rng(0)
        data = rng.integers(0, 256, args.size**2 // weights * size, np.uint8)
        data[1::2] &= 0xBF  # finite scales
        stored, held = torch.from_numpy(data), torch.empty(args.size**2)
        wanted = torch.from_numpy(gguf.quants.dequantize(data, kind).reshape(-1))
        assert torch.equal(dequantise(stored, name), wanted)
        row = table[name] = fastest(
            {
                "gguf-py": lambda data=data, kind=kind: gguf.quants.dequantize(data, kind),
                "gatekit": lambda stored=stored, name=name: dequantise(stored, name),
                "held": lambda s=stored, n=name, h=held: dequantise(s, n, out=h),
            }
        )
        base, new, kept = row.values()
        print(f"{name:8}{base:10.1f}{new:10.1f}{base / new:8.2f}{kept:10.1f}{base / kept:8.2f}")
    if args.json:
        args.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
