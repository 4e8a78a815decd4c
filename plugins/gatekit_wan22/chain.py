"""The transformer's blocks as a chain that somebody else runs: what step caches need."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from gatekit import Block, Body

from .procession import called

if TYPE_CHECKING:
    from torch import Tensor, nn


@cache
def _chain_class() -> type[nn.Module]:
    """The class ``Chain``; made on first use because torch takes seconds to import."""
    from torch import nn

    class Chain(nn.Module):
        """Stands in the model where its blocks do, and lets ``body`` run them."""

        def __init__(self, blocks: Any, body: Body) -> None:
            super().__init__()
            self.held = (called(blocks), body)  # in a tuple, so that they are no children of it

        def forward(self, hidden: Tensor, *given: Any, **named: Any) -> Tensor:
            blocks, body = self.held

            def bound(block: Any) -> Block:
                return lambda hidden: block(hidden, *given, **named)

            return body([bound(block) for block in blocks], hidden)

    return Chain


def in_chain(model: Any) -> bool:
    """Whether a ``body`` runs the blocks of ``model`` now."""
    return isinstance(model.blocks[0], _chain_class())


@contextmanager
def chained(model: Any, body: Body) -> Generator[None]:
    """Within it, ``body`` runs the blocks of ``model``; the model itself stays as it is."""
    from torch import nn

    blocks = model.blocks
    model.blocks = nn.ModuleList([_chain_class()(blocks, body)])
    try:
        yield
    finally:
        model.blocks = blocks
