"""y = x W^T + b for few hundred tokens, with W in blocks: ``fused_kernel.py``'s tiles and launch.

As in ``product.py`` W is rounded to x's type, products are summed in float32 and the bias is added
before the one rounding of y.

``tile_of`` is the one place that says for which sizes this is used.
"""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import triton

from .expand import _RELAUNCHES, as_words
from .kinds import Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CAPABILITY = (9, 0)  # the tensor cores' instructions are Hopper's own
TRITON = (3, 6)  # whose Gluon the kernel is written for
STEP = 64  # weights of a row and a plane that a step multiplies
USED = range(0)  # numbers of tokens for which it is used: none, until it is measured


@dataclass(frozen=True)
class Tile:
    """What a program makes, and how.

    Args:
        rows: Rows of W: 64 or 128.
        tokens: Of x: 32 to 256.
        programs: That share all steps of all tiles; 0 for one a tile.
        stages: Buffers of x, at least 4.
        held: Buffers of decoded weights, at least 3.
        registers: A thread's at most, where two programs are to share an SM; 0 for no limit.
    """

    rows: int = 128
    tokens: int = 256
    programs: int = 0
    stages: int = 4
    held: int = 3
    registers: int = 0

    @property
    def warps(self) -> int:
        """A group of 4 multiplies 64 rows."""
        return self.rows // 16


def candidates(tokens: int, sms: int) -> list[Tile]:
    """Tiles worth timing for a number of tokens, the likeliest first."""
    if tokens > 128:
        return [
            Tile(programs=sms),
            Tile(),
            Tile(programs=sms, stages=5),
            Tile(tokens=128, programs=sms),
        ]
    n = 32 if tokens <= 32 else 64 if tokens <= 64 else 128
    return [
        Tile(tokens=n, programs=2 * sms, registers=128),
        Tile(tokens=n, programs=sms),
        Tile(rows=64, tokens=n, programs=2 * sms, stages=6),
        Tile(rows=64, tokens=n, programs=3 * sms, registers=168),
    ]


def tile_of(tokens: int, columns: int, kind: Kind, device: torch.device) -> Tile | None:
    """The tile for a size; None where the product is made otherwise."""
    if tokens not in USED or columns % (STEP * kind.planes) or not available(device):
        return None
    return candidates(tokens, sms_of(device))[0]


@cache
def available(device: torch.device) -> bool:
    """Whether a device can run the kernel, with the Triton that is installed."""
    import torch

    version = tuple(int(n) for n in triton.__version__.split(".")[:2])
    return (
        device.type == "cuda"
        and version >= TRITON
        and torch.cuda.get_device_capability(device) == CAPABILITY
    )


@cache
def sms_of(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU."""
    import torch

    return torch.cuda.get_device_properties(device).multi_processor_count


class _Arrivals(threading.local):
    """Zeros that each product leaves as zeros; one stream's products wait for one another."""

    def __init__(self) -> None:
        self.of: dict[tuple[torch.device, int], Tensor] = {}


_arrivals = _Arrivals()


def arrivals(tiles: int, device: torch.device) -> Tensor:
    """At least ``tiles`` zeros for this thread and stream; a graph that is captured has its own."""
    import torch

    stream = 0
    if device.type == "cuda":
        if torch.cuda.is_current_stream_capturing():
            return torch.zeros(tiles, dtype=torch.int32, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream
    held = _arrivals.of.get((device, stream))
    if held is None or held.numel() < tiles:
        with torch.inference_mode(False):
            held = torch.zeros(max(tiles, 4096), dtype=torch.int32, device=device)
        _arrivals.of[device, stream] = held
    return held


_launches: dict[tuple[Any, ...], Any] = {}  # as ``expand`` keeps them


def fused(
    x: Tensor,
    blocks: Tensor,
    kind: Kind,
    rows: int,
    bias: Tensor | None,
    tile: Tile,
    zeros: Tensor | None = None,
) -> Tensor:
    """X ``[tokens, in]`` in bf16 or fp16, times the blocks of W ``[rows, in]``, plus the bias.

    Args:
        x: Of any strides.
        blocks: uint8, whole blocks.
        kind: Their type.
        rows: Of W.
        bias: ``[rows]``.
        tile: What a program makes.
        zeros: ``arrivals`` of the caller's own, int32, left as zeros.
    """
    import torch

    tokens, columns = x.shape
    steps = columns // (STEP * kind.planes)
    if columns % (STEP * kind.planes):
        raise ValueError(f"{columns} columns are no multiple of {STEP * kind.planes}")
    out = torch.empty(tokens, rows, dtype=x.dtype, device=x.device)
    if not tokens:
        return out
    if x.stride(1) != 1 or x.stride(0) % 16 or x.data_ptr() % 16:
        x = x.clone(memory_format=torch.contiguous_format)
    tiles = triton.cdiv(tokens, tile.tokens) * triton.cdiv(rows, tile.rows)
    programs = min(tile.programs or tiles, tiles * steps)
    shared = 2 * programs * tile.rows * tile.tokens if tiles % programs else 4
    work = torch.empty(shared, dtype=torch.float32, device=x.device)
    count = arrivals(tiles, x.device) if zeros is None else zeros
    words, known = as_words(blocks, kind), x if bias is None else bias
    numbers = tokens, rows, columns // kind.weights, steps, x.stride(0)
    given = (x, words, known, out, work, count, *numbers)
    shape = bias is not None, tile.rows, tile.tokens, tile.stages, tile.held
    key = kind, x.dtype, known.dtype, x.device, tile, words.data_ptr() % 16, known.data_ptr() % 16
    ready = _launches.get((*key, shape))
    here = x.device.type != "cuda" or x.device.index == torch.cuda.current_device()
    with nullcontext() if here else torch.cuda.device(x.device):  # Triton launches on the current
        if ready is not None:
            ready[programs, 1, 1](*given, *kind.constants.values(), *shape)
            return out
        from .fused_kernel import fused_kernel

        names = "BIAS", "ROWS", "TOKENS", "STAGES", "HELD"
        limit = {"maxnreg": tile.registers} if tile.registers else {}
        made = fused_kernel[programs, 1, 1](
            *given, **kind.constants, **dict(zip(names, shape, strict=True)),
            num_warps=tile.warps, **limit,
        )  # fmt: skip
    if made is not None and _RELAUNCHES:  # the interpreter makes none
        _launches[*key, shape] = made
    return out
