"""Kinds of things that plugins offer, and what a class has to be to be one of a kind."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gatekit.errors import PluginError


@dataclass(frozen=True)
class Kind:
    """One kind of thing that plugins offer.

    Attributes:
        label: What messages call it.
        table: The attribute of the Registry that holds it; its hook is called after it too.
        module: Where the class is that it must derive from.
        base: That class.
        listing: What lists all there are.
    """

    label: str
    table: str
    module: str
    base: str
    listing: str = "'gatekit plugins' lists all"

    @property
    def hook(self) -> str:
        """Name of the hook that offers it."""
        return f"gatekit_register_{self.table}"


KINDS: Mapping[str, Kind] = {
    "sampler": Kind(
        "sampler", "samplers", "gatekit.sampler", "Sampler", "'gatekit samplers' lists all"
    ),
    "grid": Kind("sigma grid", "sigmas", "gatekit.sigmas", "SigmaGrid"),
    "history": Kind("history policy", "history", "gatekit.history", "HistoryPolicy"),
    "strategy": Kind("strategy", "phases", "gatekit.phase", "Phase"),
    "guidance": Kind("guidance", "guidance", "gatekit.guidance", "Guidance"),
    "cache": Kind("step cache", "caches", "gatekit.stepcache", "StepCache"),
    "family": Kind("model family", "families", "gatekit.family", "ModelFamily"),
    "metric": Kind("metric", "metrics", "gatekit.metric", "Metric"),
    "variant": Kind("variant", "variants", "gatekit.variant", "ModelVariant"),
}


def key_of(kind: str, cls: type[Any]) -> Any:
    """What a class is found by."""
    return (cls.family, cls.name) if kind == "variant" else cls.name


def checked(classes: Any, about: Kind) -> list[type[Any]]:
    """What a hook returned, if it is what the hook asks for.

    Raises:
        PluginError: Not a list of classes of the right base with a name and what it declares.
    """
    base: Any = getattr(importlib.import_module(about.module), about.base)
    found: list[Any] = list(classes)
    for cls in found:
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise PluginError(
                f"{about.hook} must return classes derived from {base.__name__}",
                value=cls,
                remedy="return a list of such classes, not of their objects",
            )
        if not isinstance(getattr(cls, "name", None), str):
            raise PluginError(
                f"{cls.__module__}.{cls.__name__} has no class attribute 'name'",
                remedy="add what schedules are to say in 'use'",
            )
        for declared, kind in base.__annotations__.items():
            if str(kind).startswith("ClassVar") and not hasattr(cls, declared):
                raise PluginError(
                    f"{cls.__module__}.{cls.__name__} has no class attribute {declared!r}",
                    remedy=f"add it: the docstring of gatekit.{base.__name__} says what it is",
                )
    return found
