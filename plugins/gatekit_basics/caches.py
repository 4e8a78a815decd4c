"""Step caches: none, and what those that skip share: the sigmas in which they may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from gatekit import Block, Cached, CacheParams, ScheduleError, StepCache

if TYPE_CHECKING:
    from torch import Tensor


class Uncached(StepCache):
    """Every block of every pass runs. The default."""

    name, off = "none", True

    def through(
        self, blocks: Sequence[Block], hidden: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> Cached:
        """All of them."""
        return Cached(run(blocks, hidden), {})


class SkipParams(CacheParams):
    """Parameters that all step caches have.

    Attributes:
        threshold: The most that a pass may be off, by the cache's own measure, to be skipped.
        start: Highest sigma at which a pass may be skipped; None: from the beginning.
        end: Lowest sigma at which one may be.
        max_skips: Most passes skipped in a row; None: any number.
    """

    threshold: float = Field(0.05, ge=0)
    start: float | None = Field(None, gt=0)
    end: float = Field(0.0, ge=0)
    max_skips: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> SkipParams:
        if self.start is not None and self.start < self.end:
            raise ValueError("start must not lie below end: sigma falls during a run")
        return self


class Skipping(StepCache):
    """What caches that skip share.

    A pass is never skipped without one before it, nor where sigma rose since: the noise is
    another there.
    """

    Params = SkipParams

    def check(self, sigmas: Sequence[float], most: float) -> None:
        """Refuse sigmas between which no pass of the phase lies; see ``StepCache.check``."""
        p: SkipParams = self.params
        first, last = sigmas[0], sigmas[-1]
        key, value, wrong = "start", p.start, ""
        if p.start is not None and p.start > most:
            wrong = f"no noise level of this path is above {most:g}"
        elif p.start is not None and p.start < last:
            wrong = f"the phase ends at sigma {last:.4g}, above where a pass may be skipped"
        elif p.end > first:
            key, value = "end", p.end
            wrong = f"the phase begins at sigma {first:.4g}, below where a pass may be skipped"
        if wrong:
            raise ScheduleError(
                wrong,
                value=value,
                remedy=f"start and end are sigmas; this phase goes from {first:.4g} to {last:.4g}",
                key=(key,),
            )

    def may_skip(self, sigma: float, memory: Mapping[str, Any]) -> bool:
        """Whether a pass at ``sigma`` may be skipped, whatever its threshold says."""
        p: SkipParams = self.params
        if not memory or sigma > memory["sigma"]:
            return False
        if p.max_skips is not None and memory["skips"] >= p.max_skips:
            return False
        return p.end <= sigma and (p.start is None or sigma <= p.start)


def run(blocks: Sequence[Block], hidden: Tensor) -> Tensor:
    """Hidden states after all of ``blocks``."""
    for block in blocks:
        hidden = block(hidden)
    return hidden
