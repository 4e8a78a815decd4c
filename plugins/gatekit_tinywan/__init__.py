"""Built-in gatekit plugin: a small model of Wan 2.2's architecture, its world and its judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import hookimpl

if TYPE_CHECKING:
    from gatekit import ModelFamily

__all__ = ["gatekit_register_families"]


@hookimpl
def gatekit_register_families() -> list[type[ModelFamily]]:
    """The family ``tinywan``."""
    from .family import TinyWanFamily

    return [TinyWanFamily]
