"""Registry: what the installed plugins offer, found by name.

Plugins are entry points of the group ``gatekit``. One that fails to import, or that clashes
with another, is kept aside and named; it stops only what asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy
from pluggy import PluginValidationError as Invalid

from gatekit import hooks
from gatekit.errors import PluginError, one_line
from gatekit.kinds import KINDS, checked, key_of
from gatekit.pluginlimit import LEFT_OUT, divided
from gatekit.suggest import did_you_mean

if TYPE_CHECKING:
    from gatekit.family import ModelFamily
    from gatekit.guidance import Guidance
    from gatekit.history import HistoryPolicy
    from gatekit.metric import Metric
    from gatekit.phase import Phase
    from gatekit.sampler import Sampler
    from gatekit.sigmas import SigmaGrid
    from gatekit.stepcache import StepCache
    from gatekit.variant import ModelVariant

GROUP = "gatekit"


@dataclass(frozen=True)
class PluginInfo:
    """One plugin: its entry point's name, the package it comes in, and what went wrong."""

    name: str
    package: str
    version: str
    module: str
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.package} {self.version})"


@dataclass
class Registry:
    """Everything the plugins offer. ``registry()`` gives the one of the installed plugins.

    Attributes:
        plugins: Every plugin found, broken ones included.
        clashes: ``(kind, name)`` -> message naming both classes and packages.
    """

    samplers: dict[str, type[Sampler]] = field(default_factory=dict[str, Any])
    sigmas: dict[str, type[SigmaGrid]] = field(default_factory=dict[str, Any])
    history: dict[str, type[HistoryPolicy]] = field(default_factory=dict[str, Any])
    phases: dict[str, type[Phase]] = field(default_factory=dict[str, Any])
    guidance: dict[str, type[Guidance]] = field(default_factory=dict[str, Any])
    caches: dict[str, type[StepCache]] = field(default_factory=dict[str, Any])
    families: dict[str, type[ModelFamily]] = field(default_factory=dict[str, Any])
    metrics: dict[str, type[Metric]] = field(default_factory=dict[str, Any])
    variants: dict[tuple[str, str], type[ModelVariant]] = field(
        default_factory=dict[tuple[str, str], Any]
    )
    plugins: dict[str, PluginInfo] = field(default_factory=dict[str, PluginInfo])
    clashes: dict[tuple[str, Any], str] = field(default_factory=dict[tuple[str, Any], str])
    owners: dict[tuple[str, Any], str] = field(default_factory=dict[tuple[str, Any], str])

    def __post_init__(self) -> None:
        self.manager = pluggy.PluginManager(hooks.PROJECT)
        self.manager.add_hookspecs(hooks)

    def table(self, kind: str) -> dict[Any, type[Any]]:
        """The dict of one kind: ``sampler``, ``grid``, ``history``, ``strategy``, ..."""
        return getattr(self, KINDS[kind].table)

    def load(self, point: EntryPoint) -> None:
        """Load one entry point; a failure is recorded under the plugin's name."""
        package, version = package_of(point)
        self.add(point.load, point.name, package, version, point.value)

    def leave_out(self, point: EntryPoint) -> None:
        """Note a plugin that is installed and not to be loaded; none of its code runs."""
        info = PluginInfo(point.name, *package_of(point), point.value, LEFT_OUT)
        self.plugins.setdefault(point.name, info)

    def register(self, plugin: Any, name: str | None = None) -> None:
        """Add a module or an object that carries hook implementations, as a test does."""
        module = str(getattr(plugin, "__name__", type(plugin).__name__))
        self.add(lambda: plugin, name or module, "this process", "", module)
        if error := self.plugins[name or module].error:
            raise PluginError(f"plugin {name or module!r}: {error}", remedy="mend the plugin")

    def add(
        self, load: Callable[[], Any], name: str, package: str, version: str, module: str
    ) -> None:
        """Load a plugin, ask it for what it offers, and note what it could not do."""
        error = None
        if name in self.plugins:
            name = f"{name} [{package}]"
        try:
            self.manager.register(load(), name)
            self.manager.check_pending()
            self._collect(name, package)
        except (Exception, SystemExit) as exc:
            last = str(exc).splitlines()[-1:] if isinstance(exc, Invalid) else []
            error = ": ".join(dict.fromkeys([one_line(exc), *last]))
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
        self.plugins[name] = PluginInfo(name, package, version, module, error)

    def remove(self, name: str) -> None:
        """Take a plugin and all it offers out again."""
        self.manager.unregister(name=name)
        del self.plugins[name]
        for kind, key in [at for at, owner in self.owners.items() if owner == name]:
            self.table(kind).pop(key, None)
            del self.owners[kind, key]

    def _collect(self, plugin: str, package: str) -> None:
        offered: list[tuple[str, Any, type[Any]]] = []
        for kind, about in KINDS.items():
            for impl in getattr(self.manager.hook, about.hook).get_hookimpls():
                if impl.plugin_name == plugin:
                    offered += [
                        (kind, key_of(kind, cls), cls) for cls in checked(impl.function(), about)
                    ]
        for kind, at, cls in offered:
            self._offer(kind, at, cls, plugin, package)

    def _offer(self, kind: str, at: Any, cls: type[Any], plugin: str, package: str) -> None:
        table = self.table(kind)
        other = table.get(at)
        if (kind, at) in self.clashes or (other is not None and other is not cls):
            first = self.clashes.get((kind, at)) or described(
                other, self.plugins.get(self.owners[kind, at])
            )
            self.clashes[kind, at] = f"{first} and {cls.__module__}.{cls.__name__} ({package})"
            table.pop(at, None)
            return
        table[at] = cls
        self.owners[kind, at] = plugin

    def get(self, kind: str, name: str, where: str | None = None) -> type[Any]:
        """Look up a class by name.

        Args:
            kind: ``sampler``, ``grid``, ``history``, ``strategy``, ``guidance``, ``cache``,
                ``family`` or ``metric``.
            name: What the schedule says in ``use``.
            where: Place of the name, for the error.

        Raises:
            PluginError: No plugin, or more than one, offers that name.
        """
        table = self.table(kind)
        if name in table:
            return table[name]
        raise self._unknown(kind, name, name, list(table), where)

    def variant(
        self, family: type[ModelFamily], name: str, where: str | None = None
    ) -> type[ModelVariant]:
        """Look up a variant by name for a family, or for a family it derives from."""
        families = lineage(family)
        for owner in families:
            if (owner, name) in self.variants:
                return self.variants[owner, name]
            if ("variant", (owner, name)) in self.clashes:
                raise self._unknown("variant", (owner, name), name, [], where)
        known = [n for f, n in self.variants if f in families]
        raise self._unknown("variant", (families[0], name), name, known, where)

    def variants_of(self, family: type[ModelFamily]) -> dict[str, type[ModelVariant]]:
        """Every variant a family can use, by name; its own before those it inherits."""
        found: dict[str, type[ModelVariant]] = {}
        for owner in reversed(lineage(family)):
            found |= {n: cls for (f, n), cls in self.variants.items() if f == owner}
        return found

    def _unknown(
        self, kind: str, at: Any, name: str, known: list[str], where: str | None
    ) -> PluginError:
        about = KINDS[kind]
        if clash := self.clashes.get((kind, at)):
            return PluginError(
                f"two plugins offer the {about.label} {name!r}: {clash}",
                where=where,
                remedy="uninstall one of the two packages",
            )
        remedy = did_you_mean(name, known, otherwise=about.listing)
        if remedy.startswith("did you mean"):
            remedy += f" {about.listing}"
        for plugin in self.manager.get_plugins():  # what a plugin would offer, and what it lacks
            for start, needs in getattr(plugin, "UNAVAILABLE", {}).items():
                remedy = needs if name.startswith(start) else remedy
        broken = [f"plugin {info}: {info.error}" for info in self.broken.values()]
        if broken:
            remedy += ". Not loaded: " + "; ".join(broken)
        return PluginError(f"unknown {about.label} {name!r}", where=where, remedy=remedy)

    @property
    def broken(self) -> dict[str, PluginInfo]:
        """Plugins that could not be loaded."""
        return {name: info for name, info in self.plugins.items() if info.error}


def package_of(point: EntryPoint) -> tuple[str, str]:
    """Name and version of the package that a plugin comes in."""
    return (point.dist.name, point.dist.version) if point.dist else ("unknown package", "")


def described(cls: Any, info: PluginInfo | None) -> str:
    """``module.Class (package)``."""
    return f"{cls.__module__}.{cls.__name__} ({info.package if info else 'unknown package'})"


def lineage(family: type[ModelFamily]) -> list[str]:
    """Names of a family and of the families it derives from, nearest first."""
    names = [vars(base)["name"] for base in family.__mro__ if "name" in vars(base)]
    return [name for name in names if isinstance(name, str)]


@cache
def registry() -> Registry:
    """The registry of the installed plugins, loaded once."""
    points = entry_points(group=GROUP)
    # Once each, in an order that no installation changes.
    unique = {(p.name, p.value, p.dist.name if p.dist else ""): p for p in points}
    found = Registry()
    kept, left = divided(point for _, point in sorted(unique.items()))
    for point in kept:
        found.load(point)
    for point in left:
        found.leave_out(point)
    return found


def list_samplers() -> dict[str, type[Sampler]]:
    """Every sampler that an installed plugin offers, by name."""
    return dict(sorted(registry().samplers.items()))
