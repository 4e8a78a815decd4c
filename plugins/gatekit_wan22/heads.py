"""Queries, keys and values of a Wan block, from its products to what attention takes.

    w = rotated(x / rms(x) * weight),    q = round((w - mean) / scale) in e4m3

The norm is over all heads of a token. A rotation turns pairs of neighbours (a, b) into
(a cos - b sin, a sin + b cos). On a GPU a kernel or two do it (``kernels.heads``); torch's
operations, elsewhere, are what those are held against.

The scale, one for all numbers, is a bound of their magnitude over 448. After a norm none exceeds
sqrt(C) max |weight|, as x / rms(x) has the length sqrt(C) and a rotation keeps lengths: nobody has
to look for the largest. A bound that is too large by 2^n costs n of the fifteen binades that e4m3
has below it, and of a number in one of the others nothing. Without a norm the largest is found.

The mean is of each channel over the tokens.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .kernels import kernels_for

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 448.0  # of e4m3
TINY = 1e-12  # a largest magnitude of zeros


class Norm(NamedTuple):
    """Norm and rotation of a head's numbers.

    Attributes:
        weight: ``[C]``, of all heads.
        eps: Added to the mean square.
        cos: ``[1, S, 1, D]`` in float32, each number there twice, as diffusers has it.
        sin: The same.
    """

    weight: Tensor
    eps: float
    cos: Tensor
    sin: Tensor


def rotated(x: Tensor, heads: int, norm: Norm) -> Tensor:
    """Normed and rotated: ``[B, S, C]`` -> ``[B, S, heads, D]`` of the same type."""
    import torch

    if torch.compiler.is_compiling():  # it cannot register the operator; ``operators`` has
        kept: Any = torch.ops.gatekit.rotated_heads
        return kept(x, heads, *norm)
    return _rotated(x, heads, *norm)


def in_fp8(
    x: Tensor, heads: int, total: int, norm: Norm | None = None, centred: bool = False
) -> tuple[Tensor, Tensor]:
    """Rounded to e4m3 with one scale, normed and rotated before where ``norm`` says how.

    Args:
        x: ``[B, S, C]``.
        heads: Of C.
        total: Tokens of the result; beyond S there are zeros.
        norm: How, or None: as x is.
        centred: Whether each channel's mean is taken off.

    Returns:
        ``[B, total, heads, D]`` in e4m3, and the float32 scale ``[1]``.
    """
    import torch

    weight, eps, cos, sin = norm or (None, 0.0, None, None)
    given = (x, heads, total, weight, eps, cos, sin, centred)
    if torch.compiler.is_compiling():
        kept: Any = torch.ops.gatekit.heads_in_fp8
        return kept(*given)
    return _in_fp8(*given)


def scale_of(most: Tensor) -> Tensor:
    """Of numbers that do not exceed this: ``[1]`` in float32."""
    return (most.clamp(min=TINY) / LARGEST).reshape(1)


def reference(x: Tensor, heads: int, norm: Norm) -> Tensor:
    """What ``rotated`` gives, by torch's operations."""
    import torch

    weight = norm.weight
    w = torch.nn.functional.rms_norm(x, weight.shape, weight, norm.eps).unflatten(2, (heads, -1))
    a, b = w.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = norm.cos[..., 0::2], norm.sin[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


def reference_fp8(
    x: Tensor, heads: int, total: int, norm: Norm | None, centred: bool
) -> tuple[Tensor, Tensor]:
    """What ``in_fp8`` gives, by torch's operations."""
    import torch

    w = x.float()
    w = w.unflatten(2, (heads, -1)) if norm is None else reference(w, heads, _widened(norm))
    means = w.mean(1, keepdim=True) if centred else None
    most = x.abs().amax().float() if norm is None else _most(norm)
    scale = scale_of(most if means is None else most + means.abs().amax())
    w = w if means is None else w - means
    q = (w * scale.reciprocal()).to(torch.float8_e4m3fn)
    added = total - x.shape[1]
    if added:
        zeros = q.new_zeros(q.shape[0], added, *q.shape[2:])
        q = torch.cat([q.view(torch.uint8), zeros.view(torch.uint8)], 1).view(q.dtype)
    return q, scale


def _most(norm: Norm) -> Tensor:
    """What no normed number exceeds."""
    return norm.weight.abs().amax().float() * norm.weight.numel() ** 0.5


def _widened(norm: Norm) -> Norm:
    return norm._replace(weight=norm.weight.float())


def _rotated(x: Tensor, heads: int, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    norm = Norm(weight, eps, cos, sin)
    if not kernels_for(x.device):
        return reference(x, heads, norm).contiguous()
    from .kernels.heads import rotate

    return rotate(x.contiguous(), heads, norm)


def _in_fp8(
    x: Tensor, heads: int, total: int, weight: Tensor | None, eps: float,
    cos: Tensor | None, sin: Tensor | None, centred: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    norm = None
    if weight is not None and cos is not None and sin is not None:
        norm = Norm(weight, eps, cos, sin)
    if not kernels_for(x.device):
        return reference_fp8(x, heads, total, norm, centred)
    return by_kernels(x.contiguous(), heads, total, norm, centred)


def by_kernels(
    x: Tensor, heads: int, total: int, norm: Norm | None, centred: bool
) -> tuple[Tensor, Tensor]:
    """``in_fp8`` by kernels; x without holes."""
    from .kernels.heads import largest, rounded, sums

    means = sums(x, heads, norm).sum(1) / x.shape[1] if centred else None
    most = largest(x).amax() if norm is None else _most(norm)
    scale = scale_of(most if means is None else most + means.abs().amax())
    return rounded(x, heads, total, scale, means, norm), scale


@cache
def operators() -> None:
    """Register both as operators, which compilers keep whole; before anything is compiled."""
    import torch

    tail = "Tensor x, SymInt heads, "
    rotate: Any = torch.library.custom_op(
        "gatekit::rotated_heads",
        _rotated,
        mutates_args=(),
        schema=f"({tail}Tensor weight, float eps, Tensor cos, Tensor sin) -> Tensor",
    )
    round_: Any = torch.library.custom_op(
        "gatekit::heads_in_fp8",
        _in_fp8,
        mutates_args=(),
        schema=f"({tail}SymInt total, Tensor? weight, float eps, Tensor? cos, Tensor? sin, "
        "bool centred) -> (Tensor, Tensor)",
    )

    @rotate.register_fake
    def _(x: Tensor, heads: int, *norm: Any) -> Tensor:
        return x.new_empty(*x.shape[:2], heads, x.shape[2] // heads)

    @round_.register_fake
    def _(x: Tensor, heads: int, total: int, *rest: Any) -> tuple[Tensor, Tensor]:
        shape = x.shape[0], total, heads, x.shape[2] // heads
        q = x.new_empty(*shape, dtype=torch.float8_e4m3fn)
        return q, x.new_empty(1, dtype=torch.float32)
