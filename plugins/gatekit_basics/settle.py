"""The strategy ``settle``: a phase that ends when its prediction has settled."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from gatekit import Evaluation, Phase, PhaseParams, State, Step

if TYPE_CHECKING:
    from torch import Tensor


class SettleParams(PhaseParams):
    """Parameters of ``settle``.

    Attributes:
        threshold: Largest remaining change of D, relative to D, that counts as settled.
        min_steps: Steps that are taken in any case: two predictions have to be compared.
        below: It ends only at this sigma or below; anywhere in the phase if None.
    """

    threshold: float = Field(0.05, gt=0)
    min_steps: int = Field(2, ge=2, le=10_000)
    below: float | None = Field(None, gt=0)


def remaining(newest: Evaluation, older: Evaluation, end: float) -> Tensor:
    """The change of D still to come down to ``end``, relative to D, per sample: float ``[B]``.

    |D_n - D_{n-1}| / |D_n| * (s_n - s_end) / (s_{n-1} - s_n), as root mean squares.
    """
    change = (newest.denoised - older.denoised).flatten(1).square().mean(1)
    size = newest.denoised.flatten(1).square().mean(1)
    part = (newest.sigma - end) / (older.sigma - newest.sigma)
    return abs(part) * (change / size.clamp(min=1e-30)).sqrt()


class Settle(Phase):
    """The grid's steps, until D would hardly change any more before the phase's end.

    The change still to come, if D goes on along sigma as over its last step:

        |D_n - D_{n-1}| / |D_n| * (s_n - s_end) / (s_{n-1} - s_n),

    as root mean squares over a sample; the worst of the batch counts. A rate alone, per step or
    per unit of lam, would not do: it says nothing of how far the end is, and lam is infinite at
    sigma 1. It is what handing over now would keep from this phase's model.

    The steps it leaves out are taken by the next phase, on the same grid: no step gets longer,
    and the number of steps stays what was planned. In the last phase the rest is left to one
    step to the end. One decision costs one wait for the device.
    """

    name = "settle"
    Params = SettleParams
    history = 2
    adaptive = True

    def next(self, state: State) -> Step | None:
        """The next sigma of the grid; none, or the end, once settled."""
        ahead = self.ahead(state.sigma)
        if len(ahead) > 1 and self._settled(state):
            return Step(self.sigmas[-1]) if self.last else None
        return Step(ahead[0]) if ahead else None

    def remark(self) -> str:
        """At most how many steps, and where it may end."""
        steps, p = len(self.sigmas) - 1, self.params
        first = self._earliest()
        if first is None:
            return f"{steps} steps: none left to leave out"
        left = "the next phase takes those left out"
        if self.last:
            left = "then one step to the end"
        at = f"from sigma {first:.4g} on, once D would change by less than {p.threshold:.3g}"
        return f"at most {steps} steps; may end {at}; {left}"

    def _earliest(self) -> float | None:
        """The first sigma at which it may end before its time."""
        inner = self.sigmas[self.params.min_steps : -1]
        return next((s for s in inner if s <= (self.params.below or s)), None)

    def _settled(self, state: State) -> bool:
        p, taken = self.params, len(state.visited) - 1
        if taken < p.min_steps or state.sigma > (p.below or state.sigma) or len(state.past) < 2:
            return False
        left = remaining(state.past[0], state.past[1], self.sigmas[-1])
        return bool((left <= p.threshold).all())
