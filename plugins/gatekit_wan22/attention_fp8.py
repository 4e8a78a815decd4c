"""Attention in fp8: softmax(q k^T / sqrt(d)) v with all operands in e4m3, by cuDNN.

q, k, v have one scale each, and the mean of k is taken off before (``heads``): it adds the same
number to all scores of a query, which the softmax does not see, and the rest is rounded the finer.
In a Wan block norm and rotation are part of that, and the output, in e4m3, is multiplied as it is
where the next matrix is in fp8. Probabilities, at most 1, are multiplied by 256 before they are
rounded. On Hopper cuDNN gives the output in e4m3 too; it cannot exceed the largest |v|, whose
scale it gets. Sums are float32.

Keys in multiples of 256 take 0.86 of the time of others (H100, 32,768 beside 32,760). So up to a
thousandth of keys of zeros is added, with values of zeros. Their score is 0, which is the mean of
a query's scores now; the exponentials of those sum up to at least their number (Jensen), so the
output shrinks by a thousandth at most, a fiftieth of what rounding does.

The graph interface of cuDNN comes with the package ``nvidia-cudnn-frontend``; the library itself is
torch's. Few keys, as of a text, are left to torch: rounding them costs more than it saves.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from gatekit import ScheduleError

from .attention_torch import FEW_KEYS, by_torch
from .heads import Norm, in_fp8, operators

if TYPE_CHECKING:
    from torch import Tensor

NAME = "cudnn_fp8"
PROBABILITY = 256.0  # what probabilities are multiplied by
TILE = 256  # keys that cuDNN takes at a time
MOST_ADDED = 0.001  # of the keys
WIDTHS = (64, 128)  # of a head, that cuDNN has kernels for


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of all queries to all keys.

    Args:
        query: ``[B, S, H, D]`` in bf16 or fp16.
        key: ``[B, K, H, D]``.
        value: ``[B, K, H, D]``.

    Returns:
        ``[B, S, H, D]``, of the query's type.
    """
    import torch

    if not fits(key.shape[1], key.shape[3]):
        return by_torch(query, key, value)
    q, k, v = (t.flatten(2) for t in (query, key, value))
    out, scale = of_projections(q, k, v, query.shape[2])
    return (out.to(torch.float32) * scale).to(query.dtype)


def fits(keys: int, width: int) -> bool:
    """Whether so many keys of heads so wide are worth it."""
    return keys >= FEW_KEYS and width in WIDTHS


def of_projections(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    of_query: Norm | None = None,
    of_key: Norm | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of what is to be rounded, and may be to be normed and rotated before.

    Args:
        query: ``[B, S, C]`` in bf16 or fp16.
        key: ``[B, K, C]``.
        value: ``[B, K, C]``.
        heads: Of C.
        of_query: Norm and rotation of the queries, or None.
        of_key: Of the keys.

    Returns:
        ``[B, S, H, D]`` in e4m3, and the float32 scale ``[1]`` that it is to be multiplied by.
    """
    import torch

    keys = key.shape[1]
    added = -keys % TILE
    total = keys + (added if added <= MOST_ADDED * keys else 0)
    q, q_scale = in_fp8(query, heads, query.shape[1], of_query)
    k, k_scale = in_fp8(key, heads, total, of_key, centred=True)
    v, v_scale = in_fp8(value, heads, total)
    if not torch.compiler.is_compiling():  # a compiler cannot register it; ``attention_own`` has
        operator()
    kernel: Any = torch.ops.gatekit.attention_fp8
    return kernel(q, k, v, q_scale, k_scale), v_scale


def reference(q: Tensor, k: Tensor, v: Tensor, q_scale: Tensor, k_scale: Tensor) -> Tensor:
    """What the kernel computes, in float32 and all at once: ``[B, S, H, D]`` in e4m3."""
    import torch

    scores = torch.einsum("bshd,bkhd->bhsk", q.float() * q_scale, k.float() * k_scale)
    scores = scores / q.shape[-1] ** 0.5
    p = (scores - scores.amax(-1, keepdim=True)).exp()
    rounded = (p * PROBABILITY).to(torch.float8_e4m3fn).float() / PROBABILITY
    out = torch.einsum("bhsk,bkhd->bshd", rounded, v.float()) / p.sum(-1).transpose(1, 2)[..., None]
    return out.to(torch.float8_e4m3fn).contiguous()


@cache
def operator() -> Any:
    """``gatekit::attention_fp8``, registered when first asked for: compilers keep it whole."""
    import torch

    operators()  # what comes before it

    @torch.library.custom_op(
        "gatekit::attention_fp8",
        mutates_args=(),
        schema="(Tensor q, Tensor k, Tensor v, Tensor q_scale, Tensor k_scale) -> Tensor",
    )
    def kernel(q: Tensor, k: Tensor, v: Tensor, q_scale: Tensor, k_scale: Tensor) -> Tensor:
        if not q.is_cuda:
            return reference(q, k, v, q_scale, k_scale)
        return by_cudnn(q, k, v, q_scale, k_scale)

    @kernel.register_fake
    def _(q: Tensor, k: Tensor, v: Tensor, q_scale: Tensor, k_scale: Tensor) -> Tensor:
        return torch.empty_like(q, memory_format=torch.contiguous_format)

    return kernel


def by_cudnn(q: Tensor, k: Tensor, v: Tensor, q_scale: Tensor, k_scale: Tensor) -> Tensor:
    """What ``reference`` computes, by cuDNN on the GPU where the tensors are."""
    import torch

    with torch.cuda.device(q.device):  # a handle is made for the current one, and runs there
        return _graph(q, k, v)(q, k, v, q_scale, k_scale)


class _Kept(threading.local):
    """A thread's graphs and handles: cuDNN's handles must not be shared."""

    def __init__(self) -> None:
        self.graphs: dict[Any, _Graph] = {}
        self.handles: dict[int, Any] = {}


_kept = _Kept()


def _graph(q: Tensor, k: Tensor, v: Tensor) -> _Graph:
    key = (q.device.index, *(layout for t in (q, k, v) for layout in (t.shape, t.stride())))
    if key not in _kept.graphs:
        _kept.graphs[key] = _Graph(q, k, v)
    return _kept.graphs[key]


class _Graph:
    """cuDNN's plan for one layout of q, k and v ``[B, S, H, D]``; on the current device."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        import cudnn
        import torch

        self.device = q.device
        kinds = cudnn.data_type
        graph: Any = cudnn.pygraph(
            io_data_type=kinds.FP8_E4M3,
            intermediate_data_type=kinds.FLOAT,
            compute_data_type=kinds.FLOAT,
            handle=self.handle,
        )
        ones: Any = {"dim": [1, 1, 1, 1], "stride": [1, 1, 1, 1], "data_type": kinds.FLOAT}
        operands = [
            graph.tensor(
                name=name, dim=list(h.shape), stride=list(h.stride()), data_type=kinds.FP8_E4M3
            )
            for name, h in zip("qkv", (t.transpose(1, 2) for t in (q, k, v)), strict=True)
        ]
        names = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
        scales = [graph.tensor(name=name, **ones) for name in names]
        out, _, *largest = graph.sdpa_fp8(
            **dict(zip("qkv", operands, strict=True)),
            **dict(zip(names, scales, strict=True)),
            generate_stats=False,
            attn_scale=q.shape[-1] ** -0.5,
            use_causal_mask=False,
        )
        like = torch.empty_like(q, memory_format=torch.contiguous_format).transpose(1, 2)
        out.set_output(True).set_dim(list(like.shape)).set_stride(list(like.stride()))
        out.set_data_type(kinds.FP8_E4M3)
        for found in largest:
            found.set_output(True).set_dim(ones["dim"]).set_stride(ones["stride"])
            found.set_data_type(kinds.FLOAT)
        try:
            graph.validate()
            graph.build_operation_graph()
            graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
            graph.check_support()
            graph.build_plans()
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
            raise ScheduleError(
                f"cuDNN has no fp8 attention of {q.shape[1]} queries and {k.shape[1]} keys for "
                f"{torch.cuda.get_device_name(self.device)}",
                value=NAME,
                remedy="use attention: native",
            ) from error
        self.graph, self.names = graph, [*operands, *scales, out, *largest]
        self.workspace = max(1, graph.get_workspace_size())
        # Scales that never change, and room for two largest magnitudes that nobody reads.
        fixed = torch.tensor([1 / PROBABILITY, PROBABILITY, 1.0, 0.0, 0.0], device=q.device)
        self.fixed = [part.view(1, 1, 1, 1) for part in fixed.split(1)]

    @property
    def handle(self) -> Any:
        """The handle of this thread for the device."""
        import cudnn

        index: Any = self.device.index
        if index not in _kept.handles:
            _kept.handles[index] = cudnn.create_handle()
        return _kept.handles[index]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, q_scale: Tensor, k_scale: Tensor) -> Tensor:
        """Run on the current stream; the output's scale is that of v."""
        import cudnn
        import torch

        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        one = (1, 1, 1, 1)
        down, up, unit, *largest = self.fixed
        # Told that v and the output have scale 1, cuDNN gives what is to be multiplied by v's.
        given = [
            *(t.transpose(1, 2) for t in (q, k, v)),
            q_scale.view(one), k_scale.view(one), unit,
            down, up, unit,
            out.transpose(1, 2), *largest,
        ]  # fmt: skip
        # Of each call's own, which torch keeps from what other streams do, and in a CUDA graph.
        workspace = torch.empty(self.workspace, dtype=torch.uint8, device=self.device)
        stream = torch.cuda.current_stream(self.device).cuda_stream
        cudnn.set_stream(handle=self.handle, stream=stream)
        pack = dict(zip(self.names, given, strict=True))
        self.graph.execute(pack, workspace, handle=self.handle)
        return out
