"""One bench: its parts in order of importance, each whatever became of those before."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

import gatekit
from gatekit_bench.blocks import check_type
from gatekit_bench.clock import Clock
from gatekit_bench.findings import Findings
from gatekit_bench.lab import FP8, PLAIN, Lab, layers_that_fit
from gatekit_bench.sizes import latent_of, shortened, size_named
from gatekit_wan22.memory import free_bytes
from gatekit_wan22.sizes import TransformerSizes, expected_shapes

PACKAGES = (
    "torch",
    "triton",
    "diffusers",
    "transformers",
    "numpy",
    "gguf",
    "flash-attn-4",
    "nvidia-cudnn-frontend",
)


@dataclass(frozen=True)
class Part:
    """One part of a bench.

    Attributes:
        name: What ``--part`` names.
        needs: Seconds it takes on a GPU as fast as an H100, roughly.
        work: What it does.
    """

    name: str
    needs: float
    work: Callable[[Lab], None]


@dataclass(frozen=True)
class Asked:
    """What a bench is asked for; the options of the command."""

    size: str = "a14b"
    tokens: Sequence[int] = (32_760, 4_590, 510)
    variants: Sequence[str] = ("Q2_K", "Q5_K", "fp8")
    seconds: float = 300.0
    only: Sequence[str] = ()
    out: Path | None = None
    folder: Path | None = None
    device: str | None = None


def session(asked: Asked) -> list[str]:
    """Run the parts; returns the names of those that failed.

    Raises:
        InputError: A size, variant, device, part or number of tokens that cannot be.
        OutputError: ``out`` cannot be written.
        Cancelled: It was interrupted; ``out`` has what was measured.
    """
    until = time.monotonic() + asked.seconds
    check(asked)
    device = asked.device or default_device()
    gatekit.check_device(device, "--device", "choose another one: --device cpu")
    sizes = size_named(asked.size)
    fit = layers_that_fit(sizes, device, asked.variants)
    about = described(device) | {
        "size": asked.size,
        "sizes": asdict(sizes),
        "layers measured": fit,
        "tokens": list(asked.tokens),
        "variants": list(asked.variants),
        "seconds asked for": asked.seconds,
    }
    findings = Findings(about, until, asked.out)
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(
            prefix="gatekit-bench-", dir=asked.folder or roomy(sizes)
        )
        lab = Lab(
            whole=sizes,
            sizes=shortened(sizes, fit),
            device=device,
            compute="bf16" if device.startswith("cuda") else "fp32",
            folder=Path(stack.enter_context(temporary)),
            tokens=sorted(set(asked.tokens), reverse=True),
            variants=list(dict.fromkeys(asked.variants)),
            findings=findings,
            clock=Clock(device),
        )
        about["files in"] = str(lab.folder.parent)
        stack.callback(lab.close)
        stack.enter_context(compiled_anew(lab.folder / "compiled"))
        parts = chosen(parts_of(lab), asked.only)
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        findings.say(f"{about['device']}; {versions}")
        less = f"; {fit} blocks are measured" if fit < sizes.layers else ""
        findings.say(f"{asked.size}: {sizes}{less}")
        try:
            for part in parts:
                with findings.part(part.name):
                    findings.need(part.needs if lab.cuda else 1.0, part.name)
                    part.work(lab)
        except KeyboardInterrupt:
            kept = f"; {asked.out} has what was measured" if asked.out is not None else ""
            raise gatekit.Cancelled(f"interrupted{kept}") from None
    findings.say(f"took {asked.seconds - findings.left:.0f} s of {asked.seconds:.0f}")
    return findings.failed


@contextlib.contextmanager
def compiled_anew(folder: Path) -> Iterator[None]:
    """Let torch keep compiled code in a new folder, so that the first pass is a first one."""
    name, before = "TORCHINDUCTOR_CACHE_DIR", os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def check(asked: Asked) -> None:
    """Raise for what cannot be, before torch is imported."""
    size_named(asked.size)
    for count in asked.tokens:
        latent_of(count)
    types = [name for name in asked.variants if name != FP8]
    for name in types:
        check_type(name)
    if not types:
        raise gatekit.InputError(
            "no GGUF type", where="--variants", value=list(asked.variants), remedy="add Q2_K"
        )
    if asked.out is not None:
        gatekit.check_out(asked.out, "--json")
    if asked.folder is not None and not asked.folder.is_dir():
        is_file = asked.folder.is_file()
        raise gatekit.InputError(
            "a file, where a folder was expected" if is_file else "no such folder",
            where="--files",
            value=str(asked.folder),
            remedy="name a folder" if is_file else "make it first",
        )


def chosen(parts: Sequence[Part], only: Sequence[str]) -> list[Part]:
    """Parts whose names begin as one of ``only`` says; all where nothing is said.

    Raises:
        InputError: No part begins so.
    """
    for start in only:
        if not any(part.name.startswith(start) for part in parts):
            raise gatekit.InputError(
                "no part begins so here",
                where="--part",
                value=start,
                remedy=f"one of {', '.join(part.name for part in parts)}",
            )
    return [p for p in parts if not only or any(p.name.startswith(start) for start in only)]


def parts_of(lab: Lab) -> list[Part]:
    """In order of importance."""
    from gatekit_bench.part_dequantise import dequantise
    from gatekit_bench.part_forward import again, forwards
    from gatekit_bench.part_gated import gated
    from gatekit_bench.part_loading import loading
    from gatekit_bench.part_memory import memory
    from gatekit_bench.part_rates import rates
    from gatekit_bench.part_run import run

    def passes(count: int, names: Sequence[str], needs: float, compiled: bool = False) -> Part:
        work = partial(forwards, tokens=count, names=names, compiled=compiled)
        return Part(f"{'compiled' if compiled else 'forward'} {count}", needs, work)

    most, *fewer = lab.tokens
    stored, coarse = [PLAIN, *lab.types], [PLAIN, lab.types[0]]
    parts = [
        Part("rates", 5, rates),
        Part("dequantise", 10, dequantise),
        passes(most, stored, 40),
    ]
    if lab.cuda:  # on a CPU nothing is compiled unless asked for
        multiplied = [name for name in lab.variants if name == FP8]
        parts.append(passes(most, [*stored, *multiplied], 75, compiled=True))
    parts.append(Part("gated", 0, gated))
    parts += [passes(count, stored, 8) for count in fewer]
    if lab.cuda:
        parts.append(Part("again compiled", 30, partial(again, tokens=most)))
    parts.append(Part("loading", 60, loading))
    parts.append(Part("memory", 60, memory))
    parts.append(Part("run", 150, run))
    if lab.cuda:
        parts += [passes(count, coarse, 40, compiled=True) for count in fewer]
    return parts


def roomy(sizes: TransformerSizes) -> Path | None:
    """A file system in memory, if it has room for two experts and memory has for four; else None.

    What is read from there is read as from a warm page cache.
    """
    place, expert = Path("/dev/shm"), 2 * sum(prod(s) for s in expected_shapes(sizes).values())
    try:
        free = shutil.disk_usage(place).free
    except OSError:
        return None
    return place if free > 2 * expert and free_bytes("cpu") > 4 * expert else None


def default_device() -> str:
    """``cuda`` where torch has it."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def described(device: str) -> dict[str, Any]:
    """The device's name, and versions."""
    import torch

    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        found: Any = torch.cuda.get_device_properties(device)
        name = f"{found.name}, {found.total_memory / (1 << 30):.0f} GiB"
    versions = {"gatekit": gatekit.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {"device": name, "versions": versions}
