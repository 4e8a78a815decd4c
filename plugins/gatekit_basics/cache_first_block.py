"""The step cache ``first_block``: the first block tells whether the others are worth running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatekit import Block, Cached
from gatekit_basics.caches import Skipping, run

if TYPE_CHECKING:
    from torch import Tensor


class FirstBlock(Skipping):
    """Runs the first block; where what it adds has changed little, reuses what the others added.

    With r the first block's output less its input, and r' that of the last pass that ran whole,
    a pass is skipped where mean|r - r'| <= threshold mean|r'|. In a batch every sample must pass.
    One block then stands for all, and what the others added is that of the last whole pass.

    Source: the first-block cache of ParaAttention, after TeaCache (Liu et al., arXiv 2411.19108).
    """

    name = "first_block"

    def through(
        self, blocks: Sequence[Block], hidden: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> Cached:
        """The first block, then the others or what they added."""
        first = blocks[0](hidden)
        added = first - hidden
        if self.may_skip(sigma, memory) and self._change(added, memory) <= self.params.threshold:
            after = {**memory, "sigma": sigma, "skips": memory["skips"] + 1}
            return Cached(first + memory["rest"], after, skipped=True)
        out = run(blocks[1:], first)
        kept = {"first": added, "rest": out - first, "sigma": sigma, "skips": 0}
        return Cached(out, kept)

    def _change(self, added: Tensor, memory: Mapping[str, Any]) -> float:
        """The largest relative change of a sample; waits for the device."""
        import torch

        before: Tensor = memory["first"]
        if before.shape != added.shape:
            return float("inf")
        axes = tuple(range(1, added.ndim))
        change = (added - before).abs().mean(axes, dtype=torch.float32)
        return float((change / before.abs().mean(axes, dtype=torch.float32)).max())
