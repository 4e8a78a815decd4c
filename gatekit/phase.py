"""Phase: the strategy by which a phase moves along the path.

It answers one question: given the state, which interval comes next, which way up, or none.
It is stateless; what it counts it counts from the state (``state.visited``).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gatekit.params import PhaseParams

if TYPE_CHECKING:
    from gatekit.state import State


@dataclass(frozen=True)
class Step:
    """Take one step down, to ``to``."""

    to: float


@dataclass(frozen=True)
class Renoise:
    """Go up to ``to`` with fresh noise."""

    to: float


class Phase(ABC):
    """A strategy over this phase's sigmas.

    Class attributes:
        name: What schedules say in ``phases[].strategy.use``.
        Params: Its parameters.
        history: Past evaluations it reads from ``state.past``.
        adaptive: Whether ``intervals`` is only a guess.

    Attributes:
        sigmas: The phase's sigmas, descending, both ends included.
        run_sigmas: The whole run's, once it runs; the phase's own before.

    Args:
        sigmas: The phase's sigmas, descending, both ends included.
        params: Its parameters; defaults if None.
    """

    name: ClassVar[str]
    Params: ClassVar[type[PhaseParams]] = PhaseParams
    history: int = 0
    adaptive: bool = False

    def __init__(self, sigmas: Sequence[float], params: PhaseParams | None = None) -> None:
        self.sigmas = tuple(sigmas)
        self.run_sigmas = self.sigmas
        self.params: Any = params if params is not None else self.Params()

    def within(self, run_sigmas: Sequence[float]) -> Self:
        """The same strategy as a part of a run over ``run_sigmas``."""
        strategy = copy.copy(self)
        strategy.run_sigmas = tuple(run_sigmas)
        return strategy

    def ahead(self, sigma: float) -> tuple[float, ...]:
        """Sigmas below ``sigma`` down to the phase's end.

        Those of the run that a phase before left out by ending early come first, so that no
        step grows because of it.
        """
        left_out = (s for s in self.run_sigmas if self.sigmas[0] < s < sigma)
        return (*left_out, *(s for s in self.sigmas if s < sigma))

    @property
    def last(self) -> bool:
        """Whether the run ends where this phase does."""
        return self.sigmas[-1] <= self.run_sigmas[-1]

    @abstractmethod
    def next(self, state: State) -> Step | Renoise | None:
        """The next interval, or None when the phase is over.

        ``state.sigma`` may lie above or below ``sigmas[0]`` where the phase before ended early
        or late; ``ahead`` has the sigmas that are left. A renoise may follow at sigma 0 too.
        """

    def intervals(self) -> tuple[tuple[float, float], ...]:
        """Intervals expected from ``sigmas[0]``, in order, for the plan."""
        return tuple(pairwise(self.sigmas))

    def remark(self) -> str:
        """A line for the plan about what is not known before the run; empty if all is."""
        return ""
