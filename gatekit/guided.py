"""What samplers see of a loaded variant: its velocity, guided, its passes cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gatekit.guidance import Guidance
from gatekit.stepcache import Block, StepCache

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.variant import ModelVariant

KEPT = "step cache"  # beside the guidance's own keys in its memory


class Guided:
    """A variant's velocity through guidance and step cache; the memory of both in one mapping.

    Attributes:
        passes: Model passes so far.
        skipped: Those of them that left blocks out.

    Args:
        variant: A loaded variant.
        guidance: How its predictions are combined.
        conditionings: By name, as the family encoded them.
        cache: Its step cache; None: none.
    """

    def __init__(
        self,
        variant: ModelVariant,
        guidance: Guidance,
        conditionings: Mapping[str, Any],
        cache: StepCache | None = None,
    ) -> None:
        self.variant, self.guidance, self.conditionings = variant, guidance, conditionings
        self.cache = None if cache is None or cache.off else cache
        self.passes = self.skipped = 0

    def velocity(
        self, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The guided velocity at (x, sigma) and the memory for the next call."""
        kept: dict[str, Any] = dict(memory.get(KEPT, {}))

        def predict(x: Tensor, sigma: float, names: Sequence[str]) -> Sequence[Tensor]:
            self.passes += len(names)
            return [self._pass(x, sigma, name, kept) for name in names]

        own = {key: value for key, value in memory.items() if key != KEPT}
        velocity, after = self.guidance.velocity(predict, x, sigma, own)
        return velocity, {**after, KEPT: kept} if kept else after

    def _pass(self, x: Tensor, sigma: float, name: str, kept: dict[str, Any]) -> Tensor:
        """One pass for one conditioning; ``kept`` gets what the cache remembers of it."""
        cache = self.cache
        if cache is None:
            return self.variant.velocity(x, sigma, self.conditionings[name])

        def body(blocks: Sequence[Block], hidden: Tensor) -> Tensor:
            made = cache.through(blocks, hidden, sigma, kept.get(name, {}))
            kept[name] = made.memory
            self.skipped += made.skipped
            return made.hidden

        return self.variant.through(x, sigma, self.conditionings[name], body)
