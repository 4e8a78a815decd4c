"""y = x W^T + b for few tokens, with W in blocks: ``fused_kernel.py``'s tiles and launch.

As in ``product.py`` W is rounded to x's type, products are summed in float32 and the bias is added
before the one rounding of y.

``tile_of`` is the one place that says for which sizes this is used.
"""

# Triton has no build for some systems, and types its kernels as plain functions.
# pyright: basic, reportMissingImports=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false
from __future__ import annotations

import threading
import warnings
from contextlib import nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import triton

from .expand import _RELAUNCHES, as_words
from .kinds import KINDS, Kind

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CAPABILITY = (9, 0)  # the tensor cores' instructions are Hopper's own
TRITON = (3, 6)  # whose Gluon the kernel is written for: its names still change
STEP = 64  # weights of a row and a plane that a step multiplies
USED = range(2, 65)  # numbers of tokens for which it is used: at 510 decoding first is faster
TYPES = ("Q2_K", "Q5_K")  # that were timed and held against float32 on a GPU

_cannot: set[torch.device] = set()  # where it could not be compiled


class Tile(NamedTuple):
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
    """Tiles worth timing for a number of tokens, the fastest first (timed at 64 and 510)."""
    if tokens > 128:
        return [
            Tile(programs=sms),
            Tile(),
            Tile(programs=sms, stages=5),
            Tile(tokens=128, programs=sms),
        ]
    n = 64 if tokens <= 64 else 128
    return [
        Tile(rows=64, tokens=n, programs=3 * sms, registers=168),
        Tile(rows=64, tokens=n, programs=2 * sms, stages=6),
        Tile(tokens=n, programs=sms),
        Tile(tokens=n, programs=2 * sms, registers=128),
        *([Tile(rows=64, tokens=32, programs=3 * sms, registers=168)] if tokens <= 32 else []),
    ]


def tile_of(tokens: int, columns: int, kind: Kind, device: torch.device) -> Tile | None:
    """The tile for a size; None where the product is made otherwise."""
    timed = tokens in USED and any(kind is KINDS[name] for name in TYPES)
    if not timed or device in _cannot or columns % (STEP * kind.planes) or not available(device):
        return None
    return _likeliest(tokens, device)


def fused_or_none(
    x: Tensor, blocks: Tensor, kind: Kind, rows: int, bias: Tensor | None, tile: Tile
) -> Tensor | None:
    """As ``fused``; None, with a warning, where it cannot be compiled: then not asked for again."""
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError

    try:
        return fused(x, blocks, kind, rows, bias, tile)
    except (CompilationError, OutOfResources, PTXASError) as error:
        _cannot.add(blocks.device)
        text = str(error).strip().splitlines()
        warnings.warn(
            f"products of few tokens decode their weights first on {blocks.device}, as their own "
            f"kernel cannot be compiled: {type(error).__name__}: {text[-1] if text else ''}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


@cache
def _likeliest(tokens: int, device: torch.device) -> Tile:
    return candidates(tokens, sms_of(device))[0]


@cache
def available(device: torch.device) -> bool:
    """Whether a device can run the kernel, with the Triton that is installed."""
    import torch

    version = tuple(int(n) for n in triton.__version__.split(".")[:2])
    return (
        device.type == "cuda"
        and version == TRITON
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


class Launch(NamedTuple):
    """What is the same for all products of a size: worked out once, as Python is waited for."""

    tiles: int
    programs: int
    shared: int  # numbers of float32 for sums of tiles that programs share
    numbers: tuple[int, ...]  # the kernel's, in its order
    shape: tuple[int, ...]  # what it is compiled for beside the kind, in its order


@cache
def launch_of(
    tile: Tile, tokens: int, rows: int, columns: int, weights: int, planes: int, biased: bool
) -> Launch:
    """A size's, for types of ``weights`` a block and ``planes``."""
    steps, rest = divmod(columns, STEP * planes)
    if rest:
        raise ValueError(f"{columns} columns are no multiple of {STEP * planes}")
    tiles = triton.cdiv(tokens, tile.tokens) * triton.cdiv(rows, tile.rows)
    programs = min(tile.programs or tiles, tiles * steps)
    shared = 2 * programs * tile.rows * tile.tokens if tiles % programs else 4
    numbers = tokens, rows, columns // weights, steps
    shape = biased, tile.rows, tile.tokens, tile.stages, tile.held
    return Launch(tiles, programs, shared, numbers, shape)


_ready: dict[tuple[Any, ...], Any] = {}  # compiled kernels, as ``expand`` keeps them


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

    (tokens, columns), device = x.shape, x.device
    out = torch.empty(tokens, rows, dtype=x.dtype, device=device)
    if not tokens:
        return out
    size = launch_of(tile, tokens, rows, columns, kind.weights, kind.planes, bias is not None)
    if x.stride(1) != 1 or x.stride(0) % 16 or x.data_ptr() % 16:
        x = x.clone(memory_format=torch.contiguous_format)
    work = torch.empty(size.shared, dtype=torch.float32, device=device)
    count = arrivals(size.tiles, device) if zeros is None else zeros
    words, known = as_words(blocks, kind), x if bias is None else bias
    given = (x, words, known, out, work, count, *size.numbers, x.stride(0))
    # It is compiled for addresses and rows that are multiples of 16, or are not, and for 1.
    places = words.data_ptr() % 16, known.data_ptr() % 16, rows % 16, rows == 1
    key = kind, x.dtype, known.dtype, device, size.shape, tile.registers, places
    ready = _ready.get(key)
    here = device.type != "cuda" or device.index == torch.cuda.current_device()
    with nullcontext() if here else torch.cuda.device(device):  # Triton launches on the current
        if ready is not None:
            ready[size.programs, 1, 1](*given, *kind.constants.values(), *size.shape)
            return out
        from .fused_kernel import fused_kernel

        names = "BIAS", "ROWS", "TOKENS", "STAGES", "HELD"
        limit = {"maxnreg": tile.registers} if tile.registers else {}
        made = fused_kernel[size.programs, 1, 1](
            *given, **kind.constants, **dict(zip(names, size.shape, strict=True)),
            num_warps=tile.warps, **limit,
        )  # fmt: skip
    if made is not None and _RELAUNCHES:  # the interpreter makes none
        _ready[key] = made
    return out
