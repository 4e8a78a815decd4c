"""A list of blocks that tells when each is about to run, and when it has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def called(blocks: Any) -> list[Callable[..., Any]]:
    """Blocks as calls, which their list is told of whoever makes them, in whatever order."""
    if not isinstance(blocks, procession_class()):
        return list(blocks)
    told: Any = blocks

    def call(i: int, block: Any) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            told.arrive(i)
            out = block(*given, **named)
            told.leave(i)
            return out

        return run

    return [call(i, block) for i, block in enumerate(told)]


@cache
def procession_class() -> Any:
    """The class ``Procession``; made on first use because torch takes seconds to import."""
    from torch import nn

    class Procession(nn.ModuleList):
        """Blocks that are told of one by one while their model runs, a plain list otherwise.

        Told of from outside, the blocks stay what they are: their names, their compiled code and
        what others put into their place.

        Args:
            blocks: In order of use.
            arrive: Called with a block's number before it runs.
            leave: And after.
        """

        def __init__(
            self, blocks: Any, arrive: Callable[[int], None], leave: Callable[[int], None]
        ) -> None:
            super().__init__(blocks)
            self.arrive, self.leave, self.runs = arrive, leave, False

        def __iter__(self) -> Iterator[nn.Module]:
            return self._told() if self.runs else super().__iter__()

        def _told(self) -> Iterator[nn.Module]:
            for i, block in enumerate(super().__iter__()):
                self.arrive(i)
                yield block
                self.leave(i)

    return Procession


def tell(
    model: Any,
    begin: Callable[[], None],
    arrive: Callable[[int], None],
    leave: Callable[[int], None],
) -> None:
    """Have a model tell when it begins, and of its blocks."""
    blocks: Any = procession_class()(list(model.blocks), arrive, leave)
    model.blocks = blocks

    def before(_model: Any, _given: Any) -> None:
        begin()
        blocks.runs = True

    def after(_model: Any, _given: Any, _out: Any) -> None:
        blocks.runs = False

    model.register_forward_pre_hook(before)
    model.register_forward_hook(after, always_call=True)  # pyright: ignore[reportCallIssue]
