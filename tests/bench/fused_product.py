"""The fused product of kernels/fused.py on an H100: every tile, against bf16 and decoding first.

    python tests/bench/fused_product.py [--tokens 510 64 1024] [--types Q2_K Q5_K] [--json FILE]
    TRITON_INTERPRET=1 python tests/bench/fused_product.py --rehearse --tokens 33 --types Q2_K

For the three shapes of A14B's matrices and each tile: the relative error against a product in
float32 with the weights that ``expand`` gives in bf16, then the time of one product. Times are of
CUDA graphs that go through matrices of 150 MB or more, so that no weight is in the cache (50 MB) as
in a pass, and are compared with torch's product in bf16 and with decoding first, both so timed. At
the end: the ten matrices of a block, each with its best tile, over bf16.

All is done in a process of its own, that is started again behind a tile which ends it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SHAPES = {(5120, 5120): 8, (13824, 5120): 1, (5120, 13824): 1}  # and how many a block has
COLD = 150 << 20  # bytes of weights that times go through
TRIES = 6  # processes


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[510, 64, 1024])
    parser.add_argument("--types", nargs="+", default=["Q2_K", "Q5_K"])
    parser.add_argument("--seconds", type=float, default=100, help="when to begin nothing more")
    parser.add_argument("--threads", type=int, default=12, help="that compile")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--log", type=Path, default=Path("fused_product.log"))
    parser.add_argument("--rehearse", action="store_true", help="tiny, by Triton's interpreter")
    parser.add_argument("--worker", type=float, help="the parent's: the time to end at")
    return parser.parse_args()


def shapes(args: argparse.Namespace) -> dict[tuple[int, int], int]:
    """Rows and columns, and how many such matrices a block has."""
    return {(192, 512): 8, (256, 768): 1} if args.rehearse else SHAPES


class Worker:
    """Measures what the log does not have; each finding is a line of it."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        self.args, self.device = args, torch.device("cpu" if args.rehearse else "cuda")
        self.dtype = torch.float16 if args.rehearse else torch.bfloat16
        lines = args.log.read_text().splitlines() if args.log.exists() else []
        self.known = {json.loads(line)["key"] for line in lines}
        self.sms = 5
        if args.rehearse:  # the interpreter knows no Gluon
            from gatekit_wan22.kernels import fused_kernel

            sys.path.append(str(Path(__file__).parents[1] / "shared"))
            fused_kernel.fused_kernel = importlib.import_module("gluon_on_cpu").on_cpu(
                fused_kernel.fused_kernel
            )
        else:
            self.sms = torch.cuda.get_device_properties(self.device).multi_processor_count
        self.zeros = torch.zeros(1 << 16, dtype=torch.int32, device=self.device)
        torch.backends.cuda.matmul.allow_tf32 = False

    def say(self, key: str, **found: Any) -> None:
        """Log it, and print what is not only for the log."""
        with self.args.log.open("a") as log:
            log.write(json.dumps({"key": key, **found}) + "\n")
        if found:
            print(key, *(f"{k} {v}" for k, v in found.items() if k != "tile"), flush=True)

    def blocks(self, name: str, rows: int, columns: int) -> Any:
        """Random bytes with finite scales."""
        import torch

        from gatekit_wan22.kernels.kinds import KINDS

        kind = KINDS[name]
        shape = rows * columns // kind.weights, kind.size
        data = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        data[:, 1::2] &= 0xBF  # the top exponent bit of every half
        return data.view(-1)

    def normal(self, rows: int, columns: int, std: float) -> Any:
        """Normal numbers in the compute type."""
        import torch

        return torch.empty(rows, columns, dtype=self.dtype, device=self.device).normal_(std=std)

    def compile_all(self) -> None:
        """Every tile of every type at once, on as many threads as there are."""
        import torch

        from gatekit_wan22.kernels.fused import candidates, fused
        from gatekit_wan22.kernels.kinds import KINDS

        def one(job: tuple[str, Any]) -> str:
            name, tile = job
            try:
                with torch.inference_mode():
                    x, blocks = self.normal(64, 1024, 1.0), self.blocks(name, 256, 1024)
                    fused(x, blocks, KINDS[name], 256, None, tile, self.zeros)
            except Exception as error:
                return f"{name} {tile}: {str(error)[:200]}"
            return ""

        tiles = {t for n in self.args.tokens for t in candidates(n, self.sms)}
        jobs = [(name, tile) for name in self.args.types for tile in tiles]
        began = time.monotonic()
        with ThreadPoolExecutor(1 if self.args.rehearse else self.args.threads) as pool:
            failed = [f for f in pool.map(one, jobs) if f]
        if not self.args.rehearse:
            torch.cuda.synchronize()
        took = time.monotonic() - began
        print(f"{len(jobs)} kernels in {took:.0f} s; failed: {failed or 'none'}", flush=True)

    def run(self) -> None:
        """Everything, in the order of what is wanted most."""
        import torch
        from gpu_clock import seconds

        from gatekit_wan22.kernels.expand import expand
        from gatekit_wan22.kernels.fused import candidates, fused
        from gatekit_wan22.kernels.kinds import KINDS

        def timed(key: str, work: Any, count: int, **more: Any) -> None:
            took = seconds(work, self.device, 5) / count * 1e6
            self.say(key, us=round(took, 2), **more)

        cold = 1 if self.args.rehearse else COLD
        for rows, columns in shapes(self.args):
            many = max(3, -(-cold // (rows * columns * 2)))
            dense = [self.normal(rows, columns, 0.02) for _ in range(many)]
            scratch = self.normal(1, rows * columns, 1.0).view(-1)
            for name in self.args.types:
                kind = KINDS[name]
                size = rows * columns // kind.weights * kind.size
                stored = [self.blocks(name, rows, columns) for _ in range(-(-cold // size))]
                for tokens in self.args.tokens:
                    if time.time() > self.args.worker:
                        print("time is up before", name, tokens, rows, columns, flush=True)
                        return
                    x = self.normal(tokens, columns, 0.01)
                    at = f"{tokens} tokens, {rows}x{columns}"
                    if f"{at}, bf16" not in self.known:
                        self.known.add(f"{at}, bf16")

                        def torchs(x: Any = x, dense: Any = dense) -> None:
                            for w in dense:
                                x @ w.t()

                        timed(f"{at}, bf16", torchs, many)
                    at = f"{at}, {name}"
                    if f"{at}, decoded first" not in self.known:

                        def decoded(stored: Any = stored, kind: Any = kind, x: Any = x) -> None:
                            for b in stored:
                                x @ expand(b, kind, scratch).view(rows, columns).t()  # noqa: B023

                        timed(f"{at}, decoded first", decoded, len(stored))
                    w = expand(stored[0], kind, scratch).view(rows, columns).float()
                    exact = x.float() @ w.t()
                    del w
                    for i, tile in enumerate(candidates(tokens, self.sms)):
                        key = f"{at}, tile {i}"
                        if key in self.known or f"begin {key}" in self.known:
                            continue
                        self.say(f"begin {key}")
                        try:

                            def multiply(blocks: Any, tile: Any = tile) -> Any:
                                return fused(x, blocks, kind, rows, None, tile, self.zeros)  # noqa: B023

                            found = [multiply(stored[0]) for _ in range(3)]
                            error = float((found[0].float() - exact).norm() / exact.norm())
                            same = all(torch.equal(found[0], f) for f in found)

                            def work(stored: Any = stored, multiply: Any = multiply) -> None:
                                for b in stored:
                                    multiply(b)

                            more = {
                                "error": f"{error:.1e}",
                                "repeats": same,
                                "tile": tile._asdict(),
                            }
                            timed(key, work, len(stored), **more)
                            if not error < 1e-2 or not same or self.zeros.any():
                                print("WRONG:", key, flush=True)
                                self.zeros.zero_()
                        except Exception as wrong:
                            self.say(key, failed=f"{type(wrong).__name__}: {str(wrong)[:300]}")
                            if "CUDA" in str(wrong) or "memory" in str(wrong):
                                sys.exit(3)  # the context is lost with it


def summary(args: argparse.Namespace) -> dict[str, Any]:
    """Ratios of every tile, and of a block's matrices with the best tile of each."""
    found = {d["key"]: d for d in map(json.loads, args.log.read_text().splitlines())}
    print(
        f"\n{'tokens':>6} {'W':>12} {'type':>6} {'us':>8} {'/bf16':>6} {'/decoded':>8}  error  tile"
    )
    blocks: dict[str, Any] = {}
    for tokens in args.tokens:
        for name in args.types:
            best, bf16, first = 0.0, 0.0, 0.0
            for (rows, columns), count in shapes(args).items():
                at = f"{tokens} tokens, {rows}x{columns}"
                base = found.get(f"{at}, bf16", {}).get("us", float("nan"))
                decoded = found.get(f"{at}, {name}, decoded first", {}).get("us", float("nan"))
                tiles = [d for k, d in found.items() if k.startswith(f"{at}, {name}, tile")]
                good = [d for d in tiles if "us" in d and float(d["error"]) < 1e-2 and d["repeats"]]
                bf16, first = bf16 + count * base, first + count * decoded
                best += count * min((d["us"] for d in good), default=float("nan"))
                for d in sorted(tiles, key=lambda d: d.get("us", float("inf"))):
                    head = f"{tokens:6} {f'{rows}x{columns}':>12} {name:>6}"
                    if "us" not in d:
                        print(head, d["failed"])
                        continue
                    used = {k: v for k, v in d["tile"].items() if v}
                    wrong = "" if d in good else "  WRONG"
                    ratios = f"{d['us']:8.1f} {d['us'] / base:6.2f} {d['us'] / decoded:8.2f}"
                    print(f"{head} {ratios}  {d['error']} {used}{wrong}")
            blocks[f"{tokens} tokens, {name}"] = [best / bf16, first / bf16]
    print("\nten matrices of a block over bf16:  fused, best tiles   decoded first")
    for what, (fused, decoded) in blocks.items():
        print(f"{what:>34}  {fused:17.3f}   {decoded:13.3f}")
    return {"found": list(found.values()), "blocks": blocks}


def main() -> None:
    """The parent starts workers; a worker measures."""
    args = arguments()
    if args.worker:
        import torch

        with torch.inference_mode():
            worker = Worker(args)
            worker.compile_all()
            worker.run()
        return
    args.log.write_text("")
    until = time.time() + args.seconds
    for attempt in range(TRIES):
        again = [sys.executable, __file__, "--worker", str(until), "--log", str(args.log)]
        again += ["--threads", str(1 if attempt else args.threads), "--types", *args.types]
        again += ["--tokens", *map(str, args.tokens), *["--rehearse"] * args.rehearse]
        left = max(20.0, until - time.time() + 60)
        try:
            code = subprocess.run(again, timeout=left).returncode
        except subprocess.TimeoutExpired:
            code = "too late"
        if code in (0, 1) or time.time() > until:  # 1 is an error of this script
            break
        print("the process ended with", code, "and is started again", flush=True)
    result = summary(args)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
