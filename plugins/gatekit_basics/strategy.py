"""The default strategy: the grid's sigmas, one after another."""

from __future__ import annotations

from gatekit import Phase, State, Step


class GridPhase(Phase):
    """Each step ends at the next sigma of the phase's grid."""

    name = "grid"

    def next(self, state: State) -> Step | None:
        """The first sigma of the grid below the state's."""
        return next((Step(sigma) for sigma in self.ahead(state.sigma)), None)
