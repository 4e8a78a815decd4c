"""The same bits from run to run on a GPU: what torch has to be told, and told back afterwards."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from gatekit.errors import GatekitError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
FIXED = (":4096:8", ":16:8")  # cuBLAS promises equal bits with these; the first is the faster


@contextmanager
def deterministic(asked: bool) -> Generator[None]:
    """Let torch compute only in ways that repeat, while this lasts; nothing where not ``asked``.

    ``torch.use_deterministic_algorithms``, cuDNN's deterministic algorithms without its search by
    timing, and cuBLAS with a workspace of fixed size. All of the process is concerned. It may be
    entered again inside.

    Raises:
        GatekitError: An operation that has no such way, or cuBLAS in use before, otherwise.
    """
    if not asked:
        yield
        return
    import torch

    cudnn: Any = torch.backends.cudnn
    memory: Any = torch.utils.deterministic
    environment = os.environ.get(WORKSPACE)
    mode = torch.get_deterministic_debug_mode()
    before = cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory
    if environment not in FIXED:
        os.environ[WORKSPACE] = FIXED[0]
    # Not to warn alone: torch then goes on. New memory is written before it is read in any case,
    # so filling it would cost and change nothing.
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = True, False, False
    try:
        yield
    except RuntimeError as exc:
        if (failure := _explained(exc)) is not None:
            raise failure from exc
        raise
    finally:
        torch.set_deterministic_debug_mode(mode)
        cudnn.deterministic, cudnn.benchmark, memory.fill_uninitialized_memory = before
        if environment is None:
            os.environ.pop(WORKSPACE, None)
        else:
            os.environ[WORKSPACE] = environment


def _explained(exc: RuntimeError) -> GatekitError | None:
    """What torch's refusal means here."""
    text = str(exc)
    if WORKSPACE in text:
        return GatekitError(
            "this process multiplied on the GPU before it was to be deterministic, which cannot be "
            "undone",
            where="deterministic",
            remedy=f"set {WORKSPACE}={FIXED[0]} before it starts, or run in a process of its own",
        )
    if "deterministic implementation" in text:
        return GatekitError(
            f"cannot be had: {text.partition('.')[0]}",
            where="deterministic",
            remedy="--set deterministic=false, or --device cpu",
        )
    return None
