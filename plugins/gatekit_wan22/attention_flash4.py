"""FlashAttention 4 (package ``flash-attn-4``): kernels of its own for Hopper and Blackwell.

Zadouri et al., "FlashAttention-4: Algorithm and Kernel Pipelining Co-Design for Asymmetric Hardware
Scaling", arXiv 2603.05451. Exact attention, sums in float32. Its first call of a kind compiles a
kernel; the package can keep it on disk.
"""

# pyright: basic, reportMissingImports=false
from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from .attention_torch import FEW_KEYS, by_torch

if TYPE_CHECKING:
    from torch import Tensor

NAME = "flash4"
SAVED = 1.1e-15  # seconds a layer, channel, query and key, less than torch's choice on an H100
WORTH = 6.0  # seconds that importing and compiling it take there


def saved_seconds(passes: int, tokens: int, layers: int, dim: int) -> float:
    """What a run saves by it: the work of attention goes by the square of the tokens."""
    return SAVED * passes * layers * dim * tokens**2


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """What ``by_torch`` gives, in bf16 or fp16."""
    import torch

    if key.shape[1] < FEW_KEYS:
        return by_torch(query, key, value)
    if not torch.compiler.is_compiling():  # a compiler cannot register it; ``attention_own`` has
        operator()
    kernel: Any = torch.ops.gatekit.attention_flash4
    return kernel(query, key, value)


@cache
def operator() -> Any:
    """``gatekit::attention_flash4``, registered when first asked for: compilers keep it whole."""
    import torch

    @torch.library.custom_op(
        "gatekit::attention_flash4",
        mutates_args=(),
        schema="(Tensor q, Tensor k, Tensor v) -> Tensor",
    )
    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not q.is_cuda:
            return by_torch(q, k, v).contiguous()
        return by_package(q, k, v)

    @kernel.register_fake
    def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.empty_like(q, memory_format=torch.contiguous_format)

    return kernel


def by_package(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The package's kernel, on the GPU where the tensors are."""
    import torch
    from flash_attn.cute import flash_attn_func

    with torch.cuda.device(q.device):  # it launches on the current one
        out = flash_attn_func(*(t.contiguous() for t in (q, k, v)))
    return (out[0] if isinstance(out, tuple) else out).contiguous()  # with sums, in some versions
