"""The strategy ``restart``: down, up again with fresh noise, down again, k times."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, model_validator

from gatekit import Phase, PhaseParams, Renoise, State, Step


class RestartParams(PhaseParams):
    """Parameters of ``restart``.

    Attributes:
        times: How often it goes up.
        low: It goes up at the first sigma of the grid at or below this; the phase's last (before
            0) if None.
        high: How far up; the phase's first sigma if None.
    """

    times: int = Field(1, ge=1, le=100)
    low: float | None = Field(None, gt=0)
    high: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _rises(self) -> RestartParams:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError("'low' must be below 'high': it goes up from 'low' to 'high'")
        return self


class Restart(Phase):
    """The grid's steps; ``times`` times, from ``low`` back up to ``high``, and on from there.

    Noise on the way up corrects errors made below; the steps are paid again. Source: Xu et al.,
    "Restart sampling for improving generative processes", arXiv 2306.14878.
    """

    name = "restart"
    Params = RestartParams

    def next(self, state: State) -> Step | Renoise | None:
        """Up, while rises are left and ``low`` is reached; else the next sigma of the grid."""
        return self._next(state.visited or (state.sigma,))

    def intervals(self) -> tuple[tuple[float, float], ...]:
        """Steps down and ways up, in order."""
        visited: tuple[float, ...] = (self.sigmas[0],)
        while (move := self._next(visited)) is not None:
            visited = (*visited, move.to)
        return tuple(pairwise(visited))

    def _next(self, visited: tuple[float, ...]) -> Step | Renoise | None:
        sigma = visited[-1]
        rises = sum(b > a for a, b in pairwise(visited))
        if rises < self.params.times and sigma <= self._low and self._high > sigma:
            return Renoise(self._high)
        return next((Step(s) for s in self.ahead(sigma)), None)

    @property
    def _high(self) -> float:
        return min(self.sigmas[0], self.params.high or self.sigmas[0])

    @property
    def _low(self) -> float:
        default = self.sigmas[-2] if self.sigmas[-1] == 0.0 else self.sigmas[-1]
        asked = self.params.low if self.params.low is not None else default
        return max(asked, self.sigmas[-1])
