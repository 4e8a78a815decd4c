"""Self-attention of Wan's blocks on a GPU: what comes before and after it in few kernels.

diffusers norms, splits and turns queries and keys in a dozen operations, of which a compiler makes
one that reads them five times. Here it is ``heads.rotated``. Where attention is in fp8, they are
rounded on the way (``heads.in_fp8``), and the output, which cuDNN gives in e4m3, goes as it is
into a product in fp8.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from . import attention_fp8
from .fp8 import fp8_linear_class
from .heads import Norm, operators, rotated

if TYPE_CHECKING:
    from torch import Tensor


def takes(attn: Any, hidden: Tensor, text: Tensor | None, mask: Any, rotary: Any) -> bool:
    """Whether this is self-attention of a kind that the kernels are for."""
    import torch

    dim = hidden.shape[-1] // attn.heads
    return (
        hidden.is_cuda
        and hidden.dtype in (torch.bfloat16, torch.float16)
        and rotary is not None
        and text is None
        and mask is None
        and attn.add_k_proj is None
        and dim & (dim - 1) == 0
        and not (torch.is_grad_enabled() and hidden.requires_grad)
    )


@cache
def processor_class() -> type[Any]:
    """The class ``SelfAttention``; made on first use because diffusers takes seconds to import."""
    from diffusers.models.transformers import transformer_wan

    theirs: Any = transformer_wan  # with backends that gatekit adds
    linear_in_fp8 = fp8_linear_class()

    class SelfAttention(transformer_wan.WanAttnProcessor):
        """diffusers' processor, its own steps where ``takes`` says so."""

        def __call__(
            self,
            attn: Any,
            hidden_states: Tensor,
            encoder_hidden_states: Tensor | None = None,
            attention_mask: Tensor | None = None,
            rotary_emb: Any = None,
        ) -> Tensor:
            given = hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            if not takes(attn, *given):
                return super().__call__(attn, *given)
            q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
            of_q = Norm(attn.norm_q.weight, attn.norm_q.eps, *rotary_emb)
            of_k = Norm(attn.norm_k.weight, attn.norm_k.eps, *rotary_emb)
            own = self._attention_backend == attention_fp8.NAME
            if own and attention_fp8.fits(k.shape[1], k.shape[2] // attn.heads):
                out, scale = attention_fp8.of_projections(q, k, v, attn.heads, of_q, of_k)
                if isinstance(attn.to_out[0], linear_in_fp8):
                    rows = scale.expand(out.shape[0] * out.shape[1], 1).contiguous()
                    y = attn.to_out[0].of_rows(out.view(len(rows), -1), rows, q.shape[:2])
                    return attn.to_out[1](y)
                out = (out.float() * scale).to(q.dtype)
            else:
                out = theirs.dispatch_attention_fn(
                    rotated(q, attn.heads, of_q),
                    rotated(k, attn.heads, of_k),
                    v.unflatten(2, (attn.heads, -1)),
                    attn_mask=None,
                    dropout_p=0.0,
                    is_causal=False,
                    backend=self._attention_backend,
                )
            return attn.to_out[1](attn.to_out[0](out.flatten(2, 3)))

    return SelfAttention


def use_own_processor(blocks: Any) -> None:
    """Let the self-attention of blocks be this one; what it does not take stays diffusers'."""
    operators()  # a compiler cannot register them
    for block in blocks:
        backend = block.attn1.processor._attention_backend
        block.attn1.set_processor(processor_class()())
        block.attn1.processor._attention_backend = backend
