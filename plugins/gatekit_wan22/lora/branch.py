"""A linear layer with a low-rank branch beside it, whatever the layer itself stores."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@cache
def lora_linear_class() -> type[nn.Module]:
    """The class ``LoraLinear``; made on first use because torch takes seconds to import."""
    import torch
    from torch import nn

    class LoraLinear(nn.Module):
        """y = base(x) + up (factors * down(x)) + full x.

        The pairs of several LoRAs are one pair, joined along the rank: two products more
        whatever their number. A LoRA of strength 0 takes no part, not even as zeros.

        Costs beside the layer's own 2 n in out operations, for n tokens: 2 n rank (in + out),
        that is the share rank (1/in + 1/out); and x read once more, y read and written once
        more.

        Args:
            base: Any module from ``[..., in]`` to ``[..., out]``.
            downs: ``[rank, in]`` of each LoRA, in the type the layer computes in.
            ups: ``[out, rank]`` of each.
            scales: alpha / rank of each.
        """

        def __init__(
            self,
            base: nn.Module,
            downs: Sequence[Tensor],
            ups: Sequence[Tensor],
            scales: Sequence[float],
        ) -> None:
            super().__init__()
            self.base = base
            self._scales, self._ranks = tuple(scales), [len(d) for d in downs]
            self._down = downs[0] if len(downs) == 1 else torch.cat(list(downs)) if downs else None
            self._up = ups[0] if len(ups) == 1 else torch.cat(list(ups), dim=1) if ups else None
            self.active: tuple[Tensor, Tensor, float | Tensor] | None = None
            self.full: Tensor | None = None

        def set(self, strengths: Sequence[float], full: Tensor | None = None) -> None:
            """Take the strength of each LoRA, and ``full`` ``[out, in]``, already multiplied."""
            self.full = full
            factors = [a * s for a, s in zip(strengths, self._scales, strict=True)]
            live = [i for i, factor in enumerate(factors) if factor]
            if self._down is None or self._up is None or not live:
                self.active = None
                return
            down, up = self._down, self._up
            if len(live) < len(factors):
                down = torch.cat([down.split(self._ranks)[i] for i in live])
                up = torch.cat([up.split(self._ranks, dim=1)[i] for i in live], dim=1)
            rows = torch.tensor([f for i in live for f in [factors[i]] * self._ranks[i]])
            same = len({factors[i] for i in live}) == 1
            self.active = (down, up, factors[live[0]] if same else rows.to(down.device))

        def forward(self, x: Tensor) -> Tensor:
            y = self.base(x)
            if self.active is None and self.full is None:
                return y
            flat, given = y.reshape(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
            if self.active is not None:
                down, up, factors = self.active
                middle = nn.functional.linear(given, down)
                if isinstance(factors, float):
                    flat = flat.addmm_(middle, up.t(), alpha=factors)
                else:  # in float32, rounded to the type of the branch
                    flat = flat.addmm_(middle.mul_(factors), up.t())
            if self.full is not None:
                flat = flat.addmm_(given, self.full.t())
            return flat.view(y.shape)

        def extra_repr(self) -> str:
            return f"rank {sum(self._ranks)}"

    return LoraLinear


def new_lora_linear(*args: Any) -> Any:
    """Make a ``LoraLinear``; the arguments are its."""
    return lora_linear_class()(*args)
