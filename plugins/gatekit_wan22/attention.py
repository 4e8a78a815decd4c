"""Attention backends by name: which there are here, which one a phase gets, and giving it.

They run through diffusers' dispatcher. The rule of ``auto``: flash 4 on Hopper, where it is there
and a run is long enough (``executions``); else torch's own choice, which on Hopper and Blackwell is
cuDNN wherever the installed one is right. Asking for cuDNN by name runs the same kernel on copies
that diffusers makes first (H100, torch 2.11, 32,760 tokens: 38.7 ms for 37.6; flash 4 32 to 34).
Backends that round to 8 bits are never chosen by themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from packaging.version import InvalidVersion, Version

from gatekit import ScheduleError

from . import attention_flash4, attention_fp8, attention_own

AUTO, NATIVE = "auto", "native"
HALF = ("bf16", "fp16", "fp8")  # computes whose attention sees 16 bits
HOPPER = 9  # the major number of its compute capability
CUDNN_SINCE = (2, 6)  # of torch; 2.5.0 gave wrong results


@dataclass(frozen=True)
class Backend:
    """One attention implementation.

    Attributes:
        dispatch: diffusers' name of it, or one of ``attention_own.OWN``.
        about: What it is, for people.
        cuda: Whether it needs an NVIDIA or AMD GPU.
        half: Whether it takes only 16-bit numbers.
        module: What must be importable, if not torch alone.
        package: Name and least version of the package that has it.
        capability: Least compute capability.
        exact: Whether it differs from the others by rounding alone.
        repeats: Whether it is known to give the same bits from run to run, where torch is told to.
    """

    dispatch: str
    about: str
    cuda: bool = True
    half: bool = True
    module: str = ""
    package: tuple[str, str] | None = None
    capability: tuple[int, int] = (0, 0)
    exact: bool = True
    repeats: bool = True


BACKENDS = {
    "native": Backend("native", "torch chooses", cuda=False, half=False),
    "math": Backend("_native_math", "plain operations", cuda=False, half=False),
    "cudnn": Backend("_native_cudnn", "cuDNN, through torch", capability=(8, 0), repeats=False),
    "efficient": Backend("_native_efficient", "memory-efficient, of torch", half=False),
    "torch_flash": Backend("_native_flash", "flash 2, of torch", capability=(8, 0)),
    "flash": Backend(
        "flash", "flash 2", module="flash_attn", package=("flash-attn", "2.6.3"), capability=(8, 0)
    ),
    "flash3": Backend(
        "_flash_3", "flash 3, built from source", module="flash_attn_3", capability=(9, 0),
        repeats=False,
    ),
    attention_flash4.NAME: Backend(
        attention_flash4.NAME, "flash 4", module="flash_attn.cute",
        package=("flash-attn-4", "4.0.0b36"), capability=(9, 0), repeats=False,
    ),
    "sage": Backend(
        "sage", "8-bit products", module="sageattention", package=("sageattention", "2.1.1"),
        capability=(8, 0), exact=False, repeats=False,
    ),
    attention_fp8.NAME: Backend(
        attention_fp8.NAME, "cuDNN, all in fp8", module="cudnn",
        package=("nvidia-cudnn-frontend", "1.32"), capability=(9, 0), exact=False, repeats=False,
    ),
    "xformers": Backend(
        "xformers", "xFormers", half=False, module="xformers", package=("xformers", "0.0.29"),
        repeats=False,
    ),
}  # fmt: skip


def numbers(text: str) -> tuple[int, ...]:
    """``2.13.0+cpu`` -> (2, 13, 0)."""
    return tuple(int(n) for n in re.findall(r"\d+", text.partition("+")[0]))


def torch_version() -> tuple[int, ...]:
    """Of the torch that is installed, without importing it."""
    try:
        return numbers(version("torch"))
    except PackageNotFoundError:
        return (0,)


def lacking(
    name: str,
    device: str,
    compute: str,
    capability: tuple[int, int] | None,
    deterministic: bool = False,
) -> tuple[str, str] | None:
    """What keeps a known backend from being used, and the remedy; None where nothing does.

    Args:
        name: One of ``BACKENDS``.
        device: Of the run.
        compute: What the arithmetic runs in.
        capability: Of the GPU, if it can be told.
        deterministic: Whether the same bits are asked for from run to run.
    """
    backend = BACKENDS[name]
    if deterministic and not backend.repeats:
        # torch offers cuDNN's under deterministic algorithms to nobody, for its gradients' sake.
        why = "is not let by torch" if name == "cudnn" else "is not known to repeat its bits"
        return f"{why} where 'deterministic' is true", "use auto, native or torch_flash"
    if backend.cuda and not device.startswith("cuda"):
        return f"needs a GPU, and this run is on {device}", "use auto, native or math"
    if capability is not None and capability < backend.capability:
        need, have = (f"{c[0]}.{c[1]}" for c in (backend.capability, capability))
        return f"needs compute capability {need}, and {device} has {have}", "use auto or native"
    if backend.half and compute not in HALF:
        return f"takes 16-bit numbers, not {compute}", "use compute: bf16, or auto or native"
    if name == "cudnn" and torch_version() < CUDNN_SINCE:
        return "needs torch 2.6, as earlier ones gave wrong results", "update torch"
    if backend.module and not _installed(backend):
        package = ">=".join(backend.package) if backend.package else ""
        remedy = f"pip install '{package}'" if package else "build it from its source"
        return "is not installed, or too old", remedy
    return None


def _installed(backend: Backend) -> bool:
    try:  # the package first: to look into ``a.b`` imports ``a``, which may be broken
        if backend.package is not None:
            name, least = backend.package
            if Version(version(name)) < Version(least):
                return False
        return find_spec(backend.module) is not None
    except (PackageNotFoundError, InvalidVersion, ImportError, OSError):
        return False


def usable(
    device: str, compute: str, capability: tuple[int, int] | None, deterministic: bool = False
) -> list[str]:
    """Backends that can be used here."""
    here = (device, compute, capability, deterministic)
    return [n for n in BACKENDS if lacking(n, *here) is None]


def choose(
    asked: str,
    device: str,
    compute: str,
    capability: tuple[int, int] | None,
    deterministic: bool = False,
) -> str:
    """The backend of a phase.

    Raises:
        ScheduleError: An unknown one, or one that is not here; the message names those that are.
    """
    place = (device, compute, capability, deterministic)
    here = f"here there are: {', '.join([AUTO, *usable(*place)])}"
    if asked == AUTO:
        own = attention_flash4.NAME
        hopper = capability is not None and capability[0] == HOPPER
        return own if hopper and lacking(own, *place) is None else NATIVE
    if asked not in BACKENDS:
        close = get_close_matches(asked, [AUTO, *BACKENDS], n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        raise ScheduleError("unknown attention backend", value=asked, remedy=meant + here)
    problem = lacking(asked, *place)
    if problem is not None:
        what, remedy = problem
        raise ScheduleError(f"attention backend {asked!r} {what}", remedy=f"{remedy}; {here}")
    return asked


def use_backend(model: Any, name: str) -> None:
    """Let every attention layer of a diffusers model use a backend; free to call again."""
    from diffusers.models.attention_dispatch import AttentionBackendName

    if name in attention_own.OWN:
        attention_own.dispatched()
        backend = name
    else:
        backend = AttentionBackendName(BACKENDS[name or "native"].dispatch)
    for module in model.modules():
        processor: Any = getattr(module, "processor", None)
        if hasattr(processor, "_attention_backend"):
            processor._attention_backend = backend
