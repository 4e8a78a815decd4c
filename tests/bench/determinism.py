"""Do runs repeat their bits, and what does it cost? ``tests/bench/determinism.py [--json FILE]``.

Each part in a process of its own, as torch reads cuBLAS's setting once a process: the small model
run several times with ``deterministic: true`` and without, then attention of A14B's size by every
backend that can be used. A part that fails is recorded with its error and the others go on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SMALL = ["sigmas.steps=4", "video.width=64", "video.height=64", "video.frames=5"]
PARTS = ("run false", "run true", "attention false", "attention true")


def repeated(calls: int, device: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Whether each call gives what the first gave, and the median of seconds; one call before."""
    import torch

    def synchronise() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    first, seconds, equal = call(), [], 0
    for _ in range(calls):
        synchronise()
        began = time.perf_counter()
        value = call()
        synchronise()
        seconds.append(time.perf_counter() - began)
        equal += bool(torch.equal(value, first))
    return {"equal": equal, "of": calls, "seconds": statistics.median(seconds)}


def runs(options: argparse.Namespace, asked: str) -> dict[str, Any]:
    """The small model's gated run."""
    import gatekit

    overrides = [f"deterministic={asked}", *(SMALL if options.small else [])]
    schedule = gatekit.load_schedule(ROOT / "schedules" / "quickstart.yaml", overrides)
    plan = gatekit.resolve(schedule, device=options.device)
    inputs = gatekit.Inputs(prompt="a large red circle moves right slowly", seed=0)

    def latent() -> Any:
        return gatekit.run(plan, inputs, decode=False).latent

    return {"small model": repeated(options.calls, options.device, latent)}


def attention(options: argparse.Namespace, asked: str) -> dict[str, Any]:
    """Attention alone, in bf16: 32,760 tokens, 40 heads of 128."""
    import torch
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    from gatekit import compute_capability
    from gatekit.determinism import deterministic
    from gatekit_wan22.attention import BACKENDS, usable

    device, strict = options.device, asked == "true"
    shape = (1, 64, 2, 32) if options.small else (1, 32_760, 40, 128)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator).bfloat16().to(device) for _ in range(3))
    found: dict[str, Any] = {}
    names = usable(device, "bf16", compute_capability(device), strict)
    for name in names:
        if name == "math" and not options.small:
            continue  # its matrix of weights does not fit

        def forward(dispatch: str = BACKENDS[name].dispatch) -> Any:
            return dispatch_attention_fn(q, k, v, backend=dispatch)

        try:
            with deterministic(strict), torch.no_grad():
                found[name] = repeated(options.calls, device, forward)
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return found


def part(options: argparse.Namespace) -> None:
    """Run one part and print it."""
    what, asked = options.part.split()
    print(json.dumps((runs if what == "run" else attention)(options, asked)))


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--device", default="cuda")
    made.add_argument("--calls", type=int, default=5, help="calls after the first")
    made.add_argument("--small", action="store_true", help="sizes that only show that it works")
    made.add_argument("--json", type=Path, metavar="FILE")
    made.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    return made


def main(argv: list[str] | None = None) -> int:
    """Run all parts."""
    given = sys.argv[1:] if argv is None else argv
    options = parser().parse_args(given)
    if options.part is not None:
        part(options)
        return 0
    found: dict[str, Any] = {}
    for name in PARTS:
        command = [sys.executable, __file__, *given, "--part", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            found[name] = {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
        else:
            found[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"deterministic {name.split()[1]}, {name.split()[0]}: {json.dumps(found[name])}",
            flush=True,
        )
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1), "utf-8")
    return int(any("error" in value for value in found.values()))


if __name__ == "__main__":
    sys.exit(main())
