"""What is recorded along a run, sample by sample: rho at a switch, and what ``settle`` measures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_basics.settle import remaining

if TYPE_CHECKING:
    from torch import Tensor


class Watched(gatekit.HistoryPolicy):
    """Another policy, with rho of every sample put down as ``auto`` would see it.

    The new model's evaluation is handed on: recording costs none.

    Attributes:
        rho: ``[n]``, one a sample; None where the history was too short, or never entered.
    """

    name = "watched"
    history = 2

    def __init__(self, inner: gatekit.HistoryPolicy) -> None:
        super().__init__()
        self._inner = inner
        self.acts_on_same_field = inner.acts_on_same_field
        self.rho: list[float] | None = None

    def leave(self, state: gatekit.State, denoise: Any, correct: Any) -> gatekit.State:
        """As the inner policy."""
        return self._inner.leave(state, denoise, correct)

    def enter(self, state: gatekit.State, denoise: Any) -> gatekit.State:
        """Put down rho, then do as the inner policy."""
        denoised = denoise(state.x, state.sigma)
        if len(state.past) >= 2:
            moved, jump = gatekit.Auto.squares(state, denoised)
            self.rho = (jump / moved).sqrt().tolist()
        return replace(self._inner.enter(state, denoise), ahead=denoised)


class SettleWatch:
    """An observer: the change still to come in one phase, after each of its steps.

    Attributes:
        values: (steps taken, ``[n]`` as ``settle`` compares them with its threshold).
    """

    def __init__(self, phase: gatekit.PlannedPhase) -> None:
        self._phase = phase
        self.values: list[tuple[int, list[float]]] = []

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """After a step."""
        if record.phase == self._phase.name and len(state.past) >= 2:
            left = remaining(state.past[0], state.past[1], self._phase.sigmas[-1])
            self.values.append((len(state.visited) - 1, left.tolist()))
