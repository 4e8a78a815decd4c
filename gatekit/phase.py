"""Phase: the strategy by which a phase moves along the path.

It answers one question: given the state, which interval comes next, which way up, or none.
It is stateless; what it counts it counts from the state (``state.visited``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

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
        self.params: Any = params if params is not None else self.Params()

    @abstractmethod
    def next(self, state: State) -> Step | Renoise | None:
        """The next interval, or None when the phase is over.

        ``state.sigma`` may lie above or below ``sigmas[0]`` where the phase before ended early
        or late. A renoise may follow at sigma 0 too.
        """

    def intervals(self) -> tuple[tuple[float, float], ...]:
        """Intervals expected from ``sigmas[0]``, in order, for the plan."""
        return tuple(pairwise(self.sigmas))
