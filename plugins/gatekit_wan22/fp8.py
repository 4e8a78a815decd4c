"""Products in fp8: y = (s_x s_w) (x_q W_q^T) + b, with one scale a token and one a row of W.

Numbers are e4m3, of which 448 is the largest; a scale is the largest magnitude of its row over
448. Weights are quantised as they arrive: once, or in every pass where they are streamed. x is each
time: by a kernel, or in compiled code by torch's operations, fused into what comes before. Sums are
float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from gatekit import ScheduleError

from .attention import torch_version
from .kernels import kernels_for

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .header import TensorInfo
    from .mapped import MappedFile

LARGEST = 448.0  # of e4m3
TINY = 1e-12  # a largest magnitude of zeros
CAPABILITY = (8, 9)  # Ada, Hopper and later multiply fp8
TORCH_SINCE = {8: (2, 7), 9: (2, 5)}  # by major capability: when torch got a scale a row there
LATER = (2, 9)
SLICE = 1024  # rows of a weight that are quantised at once
STEP = 16  # what both sides of a matrix are multiples of
REMEDY = "use compute: bf16"


def check_fp8(
    device: str,
    capability: tuple[int, int] | None,
    shapes: Iterable[tuple[str, tuple[int, ...]]] = (),
) -> None:
    """Raise ScheduleError where products in fp8 cannot be had.

    Args:
        device: Of the run.
        capability: Of its GPU; None where it is not here, so that nobody can tell.
        shapes: Names and shapes of the matrices.
    """
    if not device.startswith("cuda"):
        raise ScheduleError(
            f"compute fp8 needs an NVIDIA GPU, and this run is on {device}",
            value="fp8",
            remedy=f"{REMEDY if device != 'cpu' else 'use compute: fp32 or bf16'}, or such a GPU",
        )
    if capability is not None and capability < CAPABILITY:
        need, have = (f"{c[0]}.{c[1]}" for c in (CAPABILITY, capability))
        raise ScheduleError(
            f"compute fp8 needs a GPU of compute capability {need}, and {device} has {have}",
            value="fp8",
            remedy=REMEDY,
        )
    since = TORCH_SINCE[9] if capability is None else TORCH_SINCE.get(capability[0], LATER)
    if torch_version() < since:
        raise ScheduleError(
            f"compute fp8 needs torch {since[0]}.{since[1]} here",
            value="fp8",
            remedy="update torch",
        )
    for name, shape in shapes:
        if any(side % STEP for side in shape):
            raise ScheduleError(
                f"compute fp8 needs matrices whose sides are multiples of {STEP}; "
                f"{name} is {shape[0]} x {shape[1]}",
                value="fp8",
                remedy=REMEDY,
            )


def in_fp8(name: str) -> bool:
    """Whether a tensor, by official name, is multiplied in fp8: the ten matrices of each block.

    Embeddings, projections of time and text, modulation, norms, the head and every bias are not.
    """
    return name.startswith("blocks.") and name.endswith(".weight") and ".norm" not in name


def fp8_shapes(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, tuple[int, ...]]]:
    """Of a model's tensors those that are multiplied in fp8."""
    return [(name, shape) for name, shape in shapes.items() if in_fp8(name)]


def quantised(w: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in e4m3, and float32 scales ``[rows, 1]``: w = scale * q, nearly."""
    import torch

    if torch.compiler.is_compiling():
        largest = w.abs().amax(-1, keepdim=True)
    else:  # two reductions and no copy: x of a long video is most of a GiB
        largest = torch.maximum(w.amax(-1, keepdim=True), -w.amin(-1, keepdim=True))
    scale = largest.float().clamp(min=TINY) / LARGEST
    # The largest becomes 448 but for the last bit, which rounding takes: nothing is cut off. A
    # division for each number would take longer than to read and write it.
    return (w * scale.reciprocal()).to(torch.float8_e4m3fn), scale


def rows_quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """``quantised``: by a kernel on a GPU, by torch's operations elsewhere and in compiled code."""
    import torch

    return quantised(x) if torch.compiler.is_compiling() else _rows_quantised(x, False)


def gelu_quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    """``quantised`` of GELU(x), in its tanh form; by a kernel on a GPU, in compiled code too."""
    import torch

    if torch.compiler.is_compiling():  # it cannot register the operator; ``gelu_operator`` has
        kept: Any = torch.ops.gatekit.gelu_in_fp8
        return kept(x)
    return _gelu_quantised(x)


def _gelu_quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    return _rows_quantised(x, True)


def _rows_quantised(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    import torch

    if kernels_for(x.device):
        from .kernels.quantise_rows import MOST, quantise_rows

        if x.shape[1] <= MOST and x.stride(1) == 1:
            return quantise_rows(x, gelu)
    return quantised(torch.nn.functional.gelu(x, approximate="tanh") if gelu else x)


@cache
def gelu_operator() -> None:
    """Register ``gatekit::gelu_in_fp8``, which compilers keep whole; before any compiles."""
    import torch

    operator: Any = torch.library.custom_op(
        "gatekit::gelu_in_fp8",
        _gelu_quantised,
        mutates_args=(),
        schema="(Tensor x) -> (Tensor, Tensor)",
    )

    @operator.register_fake
    def _(x: Tensor) -> tuple[Tensor, Tensor]:
        q = x.new_empty(x.shape, dtype=torch.float8_e4m3fn)
        return q, x.new_empty(x.shape[0], 1, dtype=torch.float32)


def stored_in_fp8(mapped: MappedFile, info: TensorInfo, device: str) -> tuple[Tensor, Tensor]:
    """A matrix of a file as ``quantised`` gives it; one that is e4m3 already, unchanged."""
    import torch

    raw, e4m3 = mapped.raw(info, device), torch.float8_e4m3fn
    same = info.type == "F8_E4M3"
    q = raw.view(e4m3).view(info.shape) if same else raw.new_empty(info.shape, dtype=e4m3)
    scale = torch.empty(len(q), dtype=torch.float32, device=device)
    round_into(raw, info, mapped.scale(info, device), q, scale)
    return q, scale.view(-1, 1)


def round_into(
    raw: Tensor, info: TensorInfo, factor: Tensor | None, q: Tensor, scale: Tensor
) -> None:
    """Quantise a stored matrix where its bytes are, some rows at a time.

    Args:
        raw: The stored bytes; of an e4m3 file they are in ``q`` already.
        info: Their type.
        factor: What the stored weights are multiplied by: ``[1]``, ``[rows]`` or None.
        q: ``[rows, columns]`` in e4m3.
        scale: ``[rows]`` in float32.
    """
    import torch

    from .dequantise import dequantise

    if info.type == "F8_E4M3":
        scale.fill_(1.0) if factor is None else scale.copy_(factor.expand_as(scale))
        return
    rows = raw.view(len(q), -1)
    for start in range(0, len(q), SLICE):
        part = slice(start, start + SLICE)
        own = factor[part] if factor is not None and factor.numel() == len(q) else factor
        w = dequantise(rows[part].reshape(-1), info.type, torch.float32, own)
        found = rows_quantised(w.view(-1, q.shape[1]))
        q[part], scale[part] = found[0], found[1].view(-1)


@cache
def fp8_linear_class() -> type[nn.Module]:
    """The class ``Fp8Linear``; made on first use because torch takes seconds to import."""
    import torch
    from torch import nn

    class Fp8Linear(nn.Module):
        """Y = x W^T + b, multiplied in fp8.

        Args:
            q: W in e4m3, ``[out, in]``.
            scale: float32 ``[out, 1]``.
            bias: ``[out]`` in bf16, or None.
        """

        q: Tensor
        scale: Tensor
        dtype = torch.bfloat16  # of x and y

        def __init__(self, q: Tensor, scale: Tensor, bias: Tensor | None) -> None:
            super().__init__()
            self.register_buffer("q", q, persistent=False)
            self.register_buffer("scale", scale.reshape(1, -1).contiguous(), persistent=False)
            self.out_features, self.in_features = q.shape
            self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

        def decoded(self) -> Tensor:
            """W ``[out, in]`` in bf16, as it is multiplied."""
            return (self.q.float() * self.scale.t()).to(self.dtype)

        def forward(self, x: Tensor) -> Tensor:
            return self.of_rows(*rows_quantised(x.reshape(-1, self.in_features)), x.shape[:-1])

        def of_gelu(self, x: Tensor) -> Tensor:
            """Y of GELU(x), in its tanh form."""
            return self.of_rows(*gelu_quantised(x.reshape(-1, self.in_features)), x.shape[:-1])

        def of_rows(self, given: Tensor, scale: Tensor, shape: Sequence[int]) -> Tensor:
            """Y ``[*shape, out]`` of rows in e4m3, and their float32 scales ``[rows, 1]``."""
            y = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
                given,
                self.q.t(),
                scale_a=scale,
                scale_b=self.scale,
                bias=self.bias,
                out_dtype=self.dtype,
                use_fast_accum=True,
            )
            return y.view(*shape, self.out_features)

        def extra_repr(self) -> str:
            return f"{self.in_features} -> {self.out_features}, e4m3"

    return Fp8Linear


def new_fp8_linear(q: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    """Make an ``Fp8Linear``; the arguments are its."""
    return fp8_linear_class()(q, scale, bias)
