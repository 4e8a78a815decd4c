"""How a phase's arithmetic is done: attention backend, compiled or not. Chosen at plan time.

A family chooses for its variants, as only it knows what its models can do; the variant is told
by ``ModelVariant.configure`` before each phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekit.errors import ScheduleError

if TYPE_CHECKING:
    from gatekit.variant import ModelVariant

AUTO = "auto"


@dataclass(frozen=True)
class Execution:
    """How a model computes.

    Attributes:
        attention: Name of the attention backend; empty for the model's own.
        compiled: Whether its repeated blocks are compiled.
        changes: What of it changes predictions beyond rounding, such as ``sage`` for 8-bit
            attention; part of the phase's field.
        remarks: Lines for the plan: why it was chosen, what is not known yet.
        replayed: Whether passes may be recorded once and replayed by the device (a CUDA graph),
            where that is possible.
    """

    attention: str = ""
    compiled: bool = False
    changes: str = ""
    remarks: tuple[str, ...] = ()
    replayed: bool = False


PLAIN = Execution()


@dataclass(frozen=True)
class PhaseAsk:
    """One phase as a family sees it when it chooses an ``Execution``.

    Attributes:
        name: The phase's name.
        variant: Its model; its headers may be read where ``found``.
        found: Whether the model's files are there.
        compute: What the arithmetic runs in.
        attention: A backend's name, or ``auto``.
        compile: Whether to compile, or ``auto``.
        passes: Model passes that are expected.
        deterministic: Whether the same bits are asked for from run to run.
        cached: Whether a step cache runs the model's blocks.
    """

    name: str
    variant: ModelVariant
    found: bool
    compute: str
    attention: str = AUTO
    compile: bool | str = AUTO
    passes: int = 0
    deterministic: bool = False
    cached: bool = False


def nothing_to_choose(asks: Sequence[PhaseAsk], family: str) -> tuple[Execution, ...]:
    """For families whose models compute in one way: refuse what a phase asks for.

    Raises:
        ScheduleError: With the phase's number and key.
    """
    for i, ask in enumerate(asks):
        for key, value in (("attention", ask.attention), ("compile", ask.compile)):
            if value not in (AUTO, False):
                raise ScheduleError(
                    f"models of the family {family!r} have no choice of {key!r}",
                    value=value,
                    remedy="take it out",
                    key=(i, key),
                )
    return tuple(PLAIN for _ in asks)
