"""Step caches: an evaluation answered from what an earlier one computed.

A model is seen as a chain of blocks over hidden states. A cache runs as many of them as it wants
and takes the rest from its memory. It keeps nothing in itself: the memory goes through the State,
one for each conditioning, so a run that is cut or resumed skips what the whole run skips.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from gatekit.params import CacheParams

if TYPE_CHECKING:
    from torch import Tensor

Block = Callable[["Tensor"], "Tensor"]
Body = Callable[[Sequence[Block], "Tensor"], "Tensor"]


@dataclass(frozen=True)
class Cached:
    """What a cache makes of one pass.

    Attributes:
        hidden: Hidden states after the last block.
        memory: For the next pass of the same conditioning: tensors, numbers, strings.
        skipped: Whether blocks were left out.
    """

    hidden: Tensor
    memory: Mapping[str, Any]
    skipped: bool = False


class StepCache(ABC):
    """Stateless; what it must remember goes through ``memory`` into the State.

    The memory is dropped where the field changes, and kept where a phase is cut in two.

    Class attributes:
        name: What schedules say in ``phases[].cache.use``.
        Params: Its parameters.
        off: Whether it never leaves a block out; the model then runs as it does without a cache.
    """

    name: ClassVar[str]
    Params: ClassVar[type[CacheParams]] = CacheParams
    off: ClassVar[bool] = False

    def __init__(self, params: CacheParams | None = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    def check(self, sigmas: Sequence[float], most: float) -> None:  # noqa: B027
        """Refuse what can never skip anything in a phase; asked at plan time.

        Args:
            sigmas: The phase's; whatever its sampler, it evaluates from the first to the last.
            most: The largest noise level of the path: 1 on a flow.

        Raises:
            ScheduleError: ``key`` is the parameter that is at fault; the plan adds the place.
        """

    @abstractmethod
    def through(
        self, blocks: Sequence[Block], hidden: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> Cached:
        """Run the blocks that are needed.

        Args:
            blocks: The model's blocks in order, each hidden states -> hidden states.
            hidden: ``[B, tokens, width]`` before the first block.
            sigma: Noise level of the evaluation.
            memory: What the pass before returned for this conditioning; empty at first.
        """
