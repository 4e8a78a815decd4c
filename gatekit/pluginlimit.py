"""Which installed plugins are loaded: a plugin is code, and loading it runs it.

gatekit's own are always loaded: they come in the package that reads the limit, so leaving them out
would guard against nothing, and without them there is no model and no sampler to run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint

from gatekit.errors import PluginError
from gatekit.suggest import did_you_mean

VARIABLE = "GATEKIT_PLUGINS"  # so that processes that a command starts have the same plugins
OPTION = "--plugins"
OURS = "gatekit-diffusion"
LEFT_OUT = f"left out by {OPTION}"


def is_ours(point: EntryPoint) -> bool:
    """Whether a plugin comes in gatekit's own package."""
    return point.dist is not None and point.dist.name == OURS


def admitted(points: Sequence[EntryPoint], limit: str | None = None) -> set[str] | None:
    """Names of the plugins that may be loaded beside gatekit's own; None: all.

    Args:
        points: Every plugin that is installed.
        limit: ``none``, or names of plugins or of their packages, joined by commas; None: what
            ``--plugins`` says.

    Raises:
        PluginError: A name that is none of theirs.
    """
    limit = os.environ.get(VARIABLE, "") if limit is None else limit
    if not limit:
        return None
    names = {name.strip() for name in limit.split(",")} - {"none", ""}
    known = {word for point in points for word in _words(point)}
    for name in sorted(names - known):
        others = {word for point in points if not is_ours(point) for word in _words(point)}
        remedy = did_you_mean(name, others) if others else "no package adds any: --plugins none"
        raise PluginError("no such plugin", where=OPTION, value=name, remedy=remedy)
    return {point.name for point in points if names & _words(point)}


def divided(points: Iterable[EntryPoint]) -> tuple[list[EntryPoint], list[EntryPoint]]:
    """Those that are loaded, and those left out. Raises as ``admitted``."""
    every = list(points)
    names = admitted(every)
    kept = [p for p in every if names is None or is_ours(p) or p.name in names]
    return kept, [p for p in every if p not in kept]


def _words(point: EntryPoint) -> set[str]:
    return {point.name, point.dist.name} if point.dist is not None else {point.name}
