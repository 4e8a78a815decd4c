"""Guidance: from a model's conditional predictions to the denoiser that samplers see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gatekit.params import GuidanceParams

if TYPE_CHECKING:
    from torch import Tensor


class Predict(Protocol):
    """Velocities of the resident variant for one or more named conditionings.

    The names are those that the family's ``encode`` returned: ``positive``, ``negative``.
    Several names are evaluated together where memory allows. Each is one pass.
    """

    def __call__(self, x: Tensor, sigma: float, names: Sequence[str]) -> Sequence[Tensor]:
        """One velocity for each of ``names``, in their order."""
        ...


class Guidance(ABC):
    """Stateless; what it must remember goes through ``memory`` into the State.

    Class attributes:
        name: What schedules say in ``phases[].guidance.use``.
        Params: Its parameters.
        needs: Conditionings it asks for.
    """

    name: ClassVar[str]
    Params: ClassVar[type[GuidanceParams]] = GuidanceParams
    needs: ClassVar[tuple[str, ...]] = ("positive",)

    def __init__(self, params: GuidanceParams | None = None) -> None:
        self.params = params if params is not None else self.Params()

    @property
    def passes(self) -> int:
        """The most model passes that one denoise costs."""
        return len(self.needs)

    def passes_at(self, sigma: float) -> int:
        """Model passes that one denoise costs at ``sigma``, for the plan."""
        return self.passes

    @abstractmethod
    def velocity(
        self, predict: Predict, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Return the guided velocity and the memory for the next call."""
