"""Built-in gatekit plugin: a small model of Wan 2.2's architecture, its world and its judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import hookimpl

if TYPE_CHECKING:
    from gatekit import Metric, ModelFamily

__all__ = ["gatekit_register_families", "gatekit_register_metrics"]


@hookimpl
def gatekit_register_families() -> list[type[ModelFamily]]:
    """The family ``tinywan``."""
    from .family import TinyWanFamily

    return [TinyWanFamily]


@hookimpl
def gatekit_register_metrics() -> list[type[Metric]]:
    """``caption``."""
    from .caption_metric import CaptionMatch

    return [CaptionMatch]
