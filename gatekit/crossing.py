"""From one phase into the next: what the history policy and plugins do at the boundary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gatekit.blame import blaming, check_state

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.ledger import Ledger
    from gatekit.stage import Engine, Stage
    from gatekit.state import State

Correct = Callable[["Stage", "State", "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Crossing:
    """One boundary of a run.

    Attributes:
        leaving: The phase that is over.
        entering: The one that follows.
        engine: Evaluates; lets go of the leaving model between ``leave`` and ``enter``.
        ledger: Asks plugins, and takes the time.
    """

    leaving: Stage
    entering: Stage
    engine: Engine
    ledger: Ledger

    def crossed(self, state: State, correct: Correct) -> State:
        """The state at the boundary, in the next phase.

        Args:
            state: At the end of the phase that is over.
            correct: What a stage's sampler makes of x with a prediction at the boundary.

        Raises:
            PluginError: The history policy raised, or gave no state like the one it was given.
        """
        leaving, entering, engine = self.leaving, self.entering, self.engine
        same = leaving.field == entering.field
        acts = not same or entering.history.acts_on_same_field
        engine.step = state.step
        if acts:
            state = self._asked(
                state,
                lambda at: entering.history.leave(
                    at, self._timed(leaving), lambda s, d: correct(leaving, s, d)
                ),
            )
        engine.release()
        changed = self.ledger.ask("cross_boundary", state, leaving.name, entering.name)
        if changed is not None:
            state = changed if changed.x is state.x else changed.displaced(changed.x)
        if not same:
            state = replace(state, ahead=None, guidance_memory={})
        engine.memory = state.guidance_memory
        if acts:
            state = self._asked(state, lambda at: entering.history.enter(at, self._timed(entering)))
        return replace(
            state,
            phase=state.phase + 1,
            visited=(state.sigma,),
            guidance_memory=engine.memory,
        )

    def _asked(self, before: State, call: Callable[[State], State]) -> State:
        """The state that the history policy gives; it is named where that fails."""
        policy, where = self.entering.history, f"start of phase {self.entering.name}"
        state = blaming("history policy", policy, where, self.engine, lambda: call(before))
        check_state(policy, where, before, state)
        return state

    def _timed(self, stage: Stage) -> Callable[[Tensor, float], Tensor]:
        """The stage's D(x, sigma) for a boundary; loads its model on the first call."""

        def denoise(x: Tensor, sigma: float) -> Tensor:
            self.engine.ensure(stage)
            with self.ledger.boundary():
                return self.engine.denoise(x, sigma)

        return denoise
