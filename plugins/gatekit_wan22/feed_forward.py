"""The feed-forward part of a block in fp8: GELU and the rounding of its result in one kernel."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from .fp8 import fp8_linear_class, gelu_operator

if TYPE_CHECKING:
    from torch import Tensor


@cache
def fp8_feed_forward_class() -> type[Any]:
    """The class ``Fp8FeedForward``; made on first use because diffusers takes seconds to import."""
    from diffusers.models.attention import FeedForward

    in_fp8 = fp8_linear_class()

    class Fp8FeedForward(FeedForward):
        """diffusers' own, of the same names, but for what comes between its two products."""

        def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            net: Any = self.net
            if isinstance(net[2], in_fp8):  # no LoRA is beside it
                return net[2].of_gelu(net[0].proj(hidden_states))
            return super().forward(hidden_states, *args, **kwargs)

    return Fp8FeedForward


def use_fp8_feed_forward(blocks: Any) -> None:
    """Let blocks in fp8 compute so. Their modules and names stay."""
    gelu_operator()  # a compiler cannot register it
    for block in blocks:
        if getattr(block.ffn.net[0], "approximate", None) == "tanh":
            block.ffn.__class__ = fp8_feed_forward_class()
