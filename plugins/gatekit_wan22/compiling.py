"""Compiled transformer blocks: one compilation for all blocks of all models of one shape.

``forward`` of diffusers' block class is compiled once, as a function of the block's shell: its
norms and modulation are inputs of the graph, its linear layers are known by number (``shell.py``).
So another block, another expert and another storage type run the same code, LoRAs or not. What
compiles it again: another number of tokens or batch, another compute type or attention backend.
"""

from __future__ import annotations

import os
import shutil
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gatekit import ScheduleError, cache_folder

from .attention import torch_version
from .shell import shell

TORCH_SINCE = (2, 5)  # weights of modules are inputs of graphs
SAVED = 10e-6  # seconds a token and pass saved at A14B's size, measured on an H100
SIZE = 40 * 5120  # layers x width that SAVED is of
WORTH = 10.0  # seconds a compilation takes; see docs/performance.md
LIMIT = 64  # graphs of one block that torch keeps
BACKEND: Any = "inductor"
CACHE_DIR = "TORCHINDUCTOR_CACHE_DIR"


def saved_seconds(passes: int, tokens: int, layers: int, dim: int) -> float:
    """What compiled blocks save in so many passes: element-wise work goes by tokens x width."""
    return SAVED * passes * tokens * layers * dim / SIZE


def lacking(device: str) -> tuple[str, str] | None:
    """What keeps blocks from being compiled for a device, and the remedy; None: nothing."""
    kind = device.partition(":")[0]
    if kind not in ("cuda", "cpu"):
        return f"blocks are not compiled for {kind}", "take 'compile' out"
    if torch_version() < TORCH_SINCE:
        return "compiling needs torch 2.5", "update torch, or take 'compile' out"
    if kind == "cuda" and find_spec("triton") is None:
        return "compiling for a GPU needs the package triton", "install it, or take 'compile' out"
    named = [os.environ.get("CC"), os.environ.get("CXX"), "gcc", "g++", "clang", "cc", "cl"]
    if not any(shutil.which(name) for name in named if name):
        return "compiling needs a C compiler", "install gcc or clang, or take 'compile' out"
    return None


def choose(asked: bool | str, device: str, saved: float) -> tuple[bool, str]:
    """Whether to compile, and why.

    Args:
        asked: ``auto``, or the schedule's word.
        device: Of the run.
        saved: ``saved_seconds`` of all phases that share the code.

    Raises:
        ScheduleError: Asked for where it cannot be.
    """
    problem = lacking(device)
    if asked is True:
        if problem is not None:
            raise ScheduleError(problem[0], value="true", remedy=problem[1])
        return True, ""
    if asked is False or not device.startswith("cuda"):
        return False, ""
    if problem is not None:
        return False, f"not compiled: {problem[0]}"
    compared = f"{saved:.0f} s of a run on an H100"
    if saved < WORTH:
        return False, f"not compiled: it would save about {compared}, less than it may take"
    return True, f"compiled, as it saves about {compared}"


def never(asked: bool | str) -> bool:
    """False: a deterministic run is not compiled, as torch times code and takes what is faster.

    Raises:
        ScheduleError: It was asked for.
    """
    if asked is True:
        raise ScheduleError(
            "compiled code is chosen by timing, so its bits may differ from run to run",
            value="true",
            remedy="take 'compile' out, or 'deterministic'",
        )
    return False


@cache
def compiled_forward(block_class: type[Any]) -> Any:
    """``forward`` of a block class, compiled when it is first run; one for the whole process."""
    import torch
    import torch._dynamo

    keep_on_disk()
    config: Any = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"
    setattr(config, limit, max(getattr(config, limit), LIMIT))
    return torch.compile(block_class.forward, fullgraph=True, dynamic=False, backend=BACKEND)


def keep_on_disk() -> None:
    """Let torch keep what it compiles in gatekit's cache folder, unless the user says where.

    Torch keys it by the code, the shapes, the device and its own version.
    """
    folder, given = cache_folder(), os.environ.get(CACHE_DIR)
    # torch writes its own default there as soon as it looks for the folder.
    if folder is not None and given in (None, torch_default()):
        os.environ[CACHE_DIR] = str(folder / "compiled")


def torch_default() -> str:
    """The temporary folder in which torch keeps compiled code where nobody names one."""
    runtime = "torch._inductor.runtime"
    try:
        where: Any = import_module(f"{runtime}.cache_dir_utils")
    except ImportError:  # torch 2.5
        where = import_module(f"{runtime}.runtime_utils")
    return str(where.default_cache_dir())


def use_compiled(model: Any, on: bool) -> None:
    """Let a model's blocks run compiled, or as they are; free to call again."""
    for block in model.blocks:
        if on == ("forward" in block.__dict__):
            continue
        if on:
            block.forward = partial(compiled_forward(type(block)), shell(block))
        else:
            block.__dict__.pop("forward", None)
