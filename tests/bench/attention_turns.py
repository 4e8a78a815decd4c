"""Attention backends in turns, at A14B's size: what a GPU's clock does meets all of them alike.

    python tests/bench/attention_turns.py [flash4 native] [--json FILE]
    python tests/bench/attention_turns.py native math --tiny      (a small size, on the CPU)

For each number of queries and keys: milliseconds of each backend, the first once more at the end,
and how far the others' outputs are from the last's, relative to it. bf16, random numbers.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from gpu_clock import median
from torch import Tensor

from gatekit_wan22 import attention, attention_own

SIZES = ((32760, 32760), (32768, 32768), (4590, 4590), (32760, 512))


def attend(name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One backend, by its name in schedules."""
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    if own := attention_own.OWN.get(name):
        return own.attend(q, k, v)
    backend = AttentionBackendName(attention.BACKENDS[name].dispatch)
    return dispatch_attention_fn(q, k, v, backend=backend)


def ms(name: str, operands: tuple[Tensor, Tensor, Tensor], cuda: bool) -> float:
    """Milliseconds of one call."""
    attend(name, *operands)
    if cuda:
        torch.cuda.synchronize()
        return 1e3 * median(lambda: attend(name, *operands), 5)
    began = time.perf_counter()
    attend(name, *operands)
    return 1e3 * (time.perf_counter() - began)


def main() -> None:
    """Parse the command line, print a line a size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("backends", nargs="*", default=["flash4", "native"])
    parser.add_argument("--tiny", action="store_true", help="a small size, on the CPU")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := sorted(set(args.backends) - set(attention.BACKENDS)):
        parser.error(f"no backend {', '.join(unknown)}; there are {', '.join(attention.BACKENDS)}")
    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny runs a small size on the CPU")
    device, heads = ("cpu", 2) if args.tiny else ("cuda", 40)
    rows: list[dict[str, Any]] = []
    for queries, keys in ((64, 64), (64, 16)) if args.tiny else SIZES:
        normal = [torch.randn(1, n, heads, 128, device=device) for n in (queries, keys, keys)]
        q, k, v = (t.bfloat16() for t in normal)
        wanted = attend(args.backends[-1], q, k, v).float()
        row: dict[str, Any] = {"queries": queries, "keys": keys}
        for name in args.backends:
            row[f"{name}, ms"] = ms(name, (q, k, v), not args.tiny)
            found = attend(name, q, k, v).float()
            row[f"{name}, difference"] = float((found - wanted).norm() / wanted.norm())
        row[f"{args.backends[0]} again, ms"] = ms(args.backends[0], (q, k, v), not args.tiny)
        print(", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
        rows.append(row)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
