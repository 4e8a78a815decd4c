"""Weights on their way: copy rates, the stall at a switch, streaming under a limit, host memory.

    python tests/bench/residency.py [--json FILE] [--folder FOLDER] [--layers 40] [--compute fp8]
    python tests/bench/residency.py --tiny        # a rehearsal on a CPU; its times mean nothing

Writes an expert of A14B's size in fp16, of random weights, into the roomier of /dev/shm and /tmp
(fewer layers where neither holds it), and computes in bf16 or fp8 at 832x480x81: 32,760 tokens.

1. Copy rates: pageable, pinned; a file in the page cache into host memory, by one reader and by as
   many as the carrier has; what pinning takes.
2. Forward time with every weight resident, and the peak beside the weights.
3. A switch into an expert that does not fit beside the current one: from the end of the one's last
   forward to the end of the other's first, less the time of a resident forward.
4. The forward streamed within 16 and 10 GiB over the resident one, whether it gives the same bits,
   and the peak of all memory.
5. The last two at 4,590 tokens, where less computing hides the copies.

A part that fails is recorded, and the next one runs. Host memory is what no file backs, at its
most, and the pinned chunks apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from full_size import transformer

import gatekit_wan22.placed as placed_module
from gatekit import ChunkPool, Placement
from gatekit.carrier import READERS
from gatekit.filebytes import Files
from gatekit.placement import Demand, least, place
from gatekit_wan22 import SafetensorsVariant, WanConditioning

GIB = 1 << 30
LARGE, SMALL = (16, 21, 60, 104), (16, 9, 34, 60)  # latents of 32,760 and 4,590 tokens


@dataclass
class Bench:
    """One run: where, how large, and what was found."""

    tiny: bool
    folder: Path
    layers: int
    compute: str = "bf16"
    found: dict[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.device = "cpu" if self.tiny else "cuda"
        self.passes = 1 if self.tiny else 2
        self.large = (16, 3, 4, 6) if self.tiny else LARGE
        self.small = (16, 1, 4, 4) if self.tiny else SMALL
        self.file = self.folder / "gatekit-bench-expert.safetensors"
        self.seconds: dict[tuple[int, ...], float] = {}
        self.outputs: dict[tuple[int, ...], torch.Tensor] = {}  # with every weight resident
        self.last: torch.Tensor | None = None  # of what ran last

    def part(self, name: str, call: Callable[[], Any]) -> None:
        """Run one part; its error is its finding."""
        began = time.perf_counter()
        try:
            self.found[name] = call()
        except Exception as error:
            traceback.print_exc()
            self.found[name] = {"error": f"{type(error).__name__}: {error}"}
        print(f"{name} ({time.perf_counter() - began:.1f} s): {self.found[name]}", flush=True)
        if not self.tiny:
            torch.cuda.empty_cache()

    def sync(self) -> None:
        """Wait for the device."""
        if not self.tiny:
            torch.cuda.synchronize()

    def variant(self) -> SafetensorsVariant:
        """The expert, not loaded."""
        return SafetensorsVariant(SafetensorsVariant.Params.model_validate({"file": self.file}))

    def pool(self) -> ChunkPool:
        """Host memory as a run takes it."""
        return ChunkPool((64 << 20) if self.tiny else 2 * GIB, pinned=not self.tiny)


def shapes(bench: Bench) -> dict[str, tuple[int, ...]]:
    """Tensors of an expert of so many layers."""
    found = transformer("t2v-a14b")
    kept = {
        name: shape
        for name, shape in found.items()
        if not name.startswith("blocks.") or int(name.split(".")[1]) < bench.layers
    }
    if not bench.tiny:
        return kept
    small = {5120: 256, 13824: 512, 4096: 128, 30720: 1536}
    return {name: tuple(small.get(n, n) for n in shape) for name, shape in kept.items()}


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a tensor."""
    array: Any = tensor.numpy()
    return memoryview(array).cast("B")


def write(bench: Bench) -> dict[str, Any]:
    """The file; blocks repeat one another's random weights."""
    listed, at, header = shapes(bench), 0, dict[str, Any]()
    for name, shape in listed.items():
        size = 2 * prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    torch.manual_seed(0)
    longest = max(map(prod, listed.values()))
    noise = (torch.randn(longest + 4096, device=bench.device) * 0.02).half().cpu()
    ones = noise + 1
    began = time.perf_counter()
    with bench.file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        stream.truncate(8 + len(text) + at)
        descriptor, start = stream.fileno(), 8 + len(text)

        def put(item: tuple[int, tuple[str, tuple[int, ...]]]) -> None:
            number, (name, shape) = item
            source = ones if "norm" in name and name.endswith("weight") else noise
            first = number % 4096
            data = bytes_of(source[first : first + prod(shape)])
            offset = start + header[name]["data_offsets"][0]
            while len(data):
                count = os.pwrite(descriptor, data[: 64 << 20], offset)
                data, offset = data[count:], offset + count

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, enumerate(listed.items())))
    return {"bytes": at, "layers": bench.layers, "seconds": time.perf_counter() - began}


def rates(bench: Bench) -> dict[str, float]:
    """Bytes a second."""
    size = (4 << 20) if bench.tiny else GIB
    source = torch.randint(0, 255, (size,), dtype=torch.uint8)
    target = torch.empty(size, dtype=torch.uint8, device=bench.device)

    def rate(call: Callable[[], object]) -> float:
        taken: list[float] = []
        for _ in range(4):
            bench.sync()
            began = time.perf_counter()
            call()
            bench.sync()
            taken.append(time.perf_counter() - began)
        return size / min(taken)

    found = {"pageable to device": rate(lambda: target.copy_(source))}
    began = time.perf_counter()
    pinned = torch.empty(size, dtype=torch.uint8, pin_memory=not bench.tiny)
    found["seconds to pin a GiB"] = (time.perf_counter() - began) * GIB / size
    found["pinned to device (the bound)"] = rate(lambda: target.copy_(pinned, non_blocking=True))
    memory, files, step = bytes_of(pinned), Files(), 8 << 20

    def read(readers: int) -> None:
        def some(at: int) -> None:
            files.read(bench.file, at, memory[at : min(at + step, size)])

        with ThreadPoolExecutor(readers) as pool:
            list(pool.map(some, range(0, min(size, bench.file.stat().st_size - step), step)))

    for readers in sorted({1, 2, READERS}):
        found[f"page cache to pinned, {readers} readers"] = rate(lambda n=readers: read(n))
    files.close()
    return found


def inputs(bench: Bench, latent: tuple[int, ...]) -> tuple[torch.Tensor, WanConditioning]:
    """State and text."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, *latent, generator=generator).to(bench.device)
    width = 128 if bench.tiny else 4096
    text = torch.randn(1, 512, width, generator=generator).to(bench.device)
    return x, WanConditioning(text=text)


@torch.no_grad()
def forward(bench: Bench, variant: SafetensorsVariant, latent: tuple[int, ...]) -> float:
    """Seconds of one forward."""
    x, conditioning = inputs(bench, latent)
    bench.sync()
    began = time.perf_counter()
    out = variant.velocity(x, 0.7, conditioning)
    bench.sync()
    taken = time.perf_counter() - began
    assert out.isfinite().all(), "not finite"
    bench.last = out
    return taken


def demand(bench: Bench, key: str, latent: tuple[int, ...]) -> Demand:
    """What the expert asks for."""
    told = bench.variant().footprint(bench.compute, latent)  # pyright: ignore[reportArgumentType]
    assert told is not None
    return Demand(key, told, 20)


def peaked(bench: Bench) -> int:
    """Peak of torch's memory on the device since the last reset."""
    return 0 if bench.tiny else torch.cuda.max_memory_allocated()


def resident(bench: Bench) -> dict[str, Any]:
    """Everything there."""
    found: dict[str, Any] = {}
    for latent in (bench.large, bench.small):
        wanted, variant = demand(bench, "one", latent), bench.variant()
        (placement,) = place([wanted], 1 << 50)
        try:
            began = time.perf_counter()
            variant.place(bench.device, bench.compute, placement, bench.pool())
            first = forward(bench, variant, latent)
            arrived = time.perf_counter() - began
            if not bench.tiny:
                torch.cuda.reset_peak_memory_stats()
            taken = [forward(bench, variant, latent) for _ in range(bench.passes)]
            peak = peaked(bench)
        finally:
            variant.unload()
        bench.seconds[latent] = statistics.median(taken)
        assert bench.last is not None
        bench.outputs[latent] = bench.last
        found[str(latent)] = {
            "forward": bench.seconds[latent],
            "place and first forward": arrived,
            "first forward": first,
            "beside weights": peak - placement.weights,
            "beside weights, as planned": wanted.footprint.working,
        }
    return found


def switch(bench: Bench, latent: tuple[int, ...]) -> dict[str, Any]:
    """The stall where the next expert does not fit beside the current one."""
    demands = [demand(bench, key, latent) for key in ("now", "after")]
    spare = (4 << 20) if bench.tiny else 3 * GIB
    limit = demands[0].footprint.weights + demands[0].footprint.working + spare
    here, there = place(demands, limit)
    assert not here.streamed and not there.streamed and here.ahead is not None
    pool, now, after = bench.pool(), bench.variant(), bench.variant()
    try:
        now.place(bench.device, bench.compute, here, pool)
        forward(bench, now, latent)
        if not bench.tiny:
            torch.cuda.reset_peak_memory_stats()
        after.prepare(bench.device, bench.compute, there, pool, here.ahead)
        taken = [forward(bench, now, latent) for _ in range(2)]
        began = time.perf_counter()
        now.unload()
        unloaded = time.perf_counter()
        after.place(bench.device, bench.compute, there, pool)
        placed = time.perf_counter()
        forward(bench, after, latent)
        ended = time.perf_counter()
        again = forward(bench, after, latent)
    finally:
        now.unload()
        after.unload()
    return {
        "limit": limit,
        "there before": here.beside,
        "to bring": there.load_bytes - here.beside,
        "stall": ended - began - again,
        "of it unloading": unloaded - began,
        "of it placing": placed - unloaded,
        "forward": again,
        "forward of the current one meanwhile": taken,
        "peak": peaked(bench),
        "pinned": pool.bytes,
    }


def streamed(bench: Bench, limit: int, latent: tuple[int, ...]) -> dict[str, Any]:
    """Forward time within a limit."""
    wanted = demand(bench, "one", latent)
    if bench.tiny:
        limit = least([wanted]) + limit // GIB * (1 << 16)
    (placement,) = place([wanted], limit)
    variant, pool = bench.variant(), bench.pool()
    if not bench.tiny:
        torch.cuda.reset_peak_memory_stats()
    try:
        began = time.perf_counter()
        variant.place(bench.device, bench.compute, placement, pool)
        forward(bench, variant, latent)
        first = time.perf_counter() - began
        taken = [forward(bench, variant, latent) for _ in range(bench.passes)]
    finally:
        variant.unload()
    whole = bench.seconds.get(latent)
    return {
        "limit": limit,
        "streamed blocks": len(placement.streamed),
        "bytes a pass": placement.pass_bytes,
        "place and first forward": first,
        "forward": statistics.median(taken),
        "same bits as resident": same_bits(bench, latent),
        "over resident": statistics.median(taken) / whole if whole else None,
        "copies alone, at the bound": _at_bound(bench, placement),
        "peak": peaked(bench),
        "within the limit": peaked(bench) <= limit,
        "pinned": pool.bytes,
    }


def same_bits(bench: Bench, latent: tuple[int, ...]) -> bool | None:
    """Whether what ran last gave what the resident model gave; None where that did not run."""
    exact = bench.outputs.get(latent)
    return None if exact is None or bench.last is None else torch.equal(bench.last, exact)


def _at_bound(bench: Bench, placement: Placement) -> float | None:
    rate = bench.found.get("rates", {}).get("pinned to device (the bound)")
    return placement.pass_bytes / rate if rate else None


def host(key: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def roomier() -> Path:
    """/dev/shm or /tmp, whichever has more room."""
    there = [Path(p) for p in ("/dev/shm", "/tmp") if Path(p).is_dir()]
    return max(there, key=lambda p: shutil.disk_usage(p).free)


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--compute", choices=("bf16", "fp8"), default="bf16")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if not args.tiny and not torch.cuda.is_available():
        parser.error("there is no GPU here; --tiny rehearses on the CPU")
    if args.tiny and args.compute == "fp8":
        parser.error("fp8 needs a GPU; leave out --compute, or --tiny")
    folder = args.folder or roomier()
    if not folder.is_dir():
        parser.error(f"--folder: {folder} is no folder; name one that is there")
    if args.layers < 4:
        parser.error("--layers must be at least 4")
    room = shutil.disk_usage(folder).free * 0.8
    each = 2 * 5120 * (8 * 5120 + 2 * 13824)
    layers = 6 if args.tiny else max(4, min(args.layers, int((room - 2 * GIB) // each)))
    bench = Bench(args.tiny, folder, layers, args.compute)
    # Both experts of the switch are one file: its bytes are to be loaded twice here.
    placed_module.find = lambda *_: None
    if args.tiny:  # brought in the background, as on a GPU
        setattr(SafetensorsVariant, "_whole", lambda *_: False)  # noqa: B010
    name = "CPU" if args.tiny else torch.cuda.get_device_name()
    bench.found |= {
        "device": name,
        "torch": torch.__version__,
        "readers": READERS,
        "compute": args.compute,
    }
    try:
        bench.part("file", lambda: write(bench))
        bench.part("rates", lambda: rates(bench))
        before = host("RssAnon")
        bench.part("resident", lambda: resident(bench))
        bench.part("switch", lambda: switch(bench, bench.large))
        for limit in (16, 10):
            bench.part(
                f"streamed in {limit} GiB",
                lambda limit=limit: streamed(bench, limit * GIB, bench.large),
            )
        bench.part("switch, few tokens", lambda: switch(bench, bench.small))
        bench.part("streamed in 16 GiB, few tokens", lambda: streamed(bench, 16 * GIB, bench.small))
        bench.found["host memory that no file backs, now less before"] = host("RssAnon") - before
        bench.found["most of this process, mapped pages too"] = host("VmHWM")
    finally:
        bench.file.unlink(missing_ok=True)
        if args.json:
            args.json.write_text(json.dumps(bench.found, indent=1))
    sys.exit(any("error" in part for part in bench.found.values() if isinstance(part, dict)))


if __name__ == "__main__":
    main()
