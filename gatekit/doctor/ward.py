"""All checks: gatekit's own, and those of plugins; none keeps another from being made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gatekit.check import Check, Examined, Finding, examined
from gatekit.doctor import computing, folders, machine, requirements
from gatekit.doctor.asking import Asked
from gatekit.errors import one_line

OWN_PACKAGE = requirements.PACKAGE
IMPORTED = ("numpy", "pydantic", "safetensors", "gguf", "ruamel.yaml")  # compiled, or read files


def examine(models_dir: Sequence[Path] = ()) -> list[Examined]:
    """Everything that ``gatekit doctor`` shows, in order; never raises but for Ctrl-C."""
    asked = [Asked(["torch", "cuda"]), Asked(["av", "pillow"]), Asked(IMPORTED)]
    try:
        groups: list[tuple[str, Callable[[], Iterable[Check]]]] = [
            ("computing", lambda: computing.checks(*asked[:2])),
            ("requirements", lambda: requirements.checks(asked[2])),
            ("plugins", plugin_checks),
            ("machine", machine.checks),
            ("folders", lambda: folders.checks(models_dir)),
        ]
        # Shown first, read last: the probes work meanwhile.
        found = [[examined(c) for c in _made(*group)] for group in reversed(groups)]
        return [line for group in reversed(found) for line in group]
    finally:
        for each in asked:
            each.close()


def _made(name: str, make: Callable[[], Iterable[Check]], own: bool = True) -> list[Check]:
    """Checks of one group; where they cannot even be made, one that says so.

    Args:
        name: Of the group.
        make: Gives them.
        own: Whether they are gatekit's, which is not ready without.
    """
    try:
        return list(make())
    except (Exception, SystemExit) as exc:
        failed = Finding(
            "broken", one_line(exc), "reinstall gatekit" if own else "update or remove it"
        )
        return [Check(name, "everything" if own else "what it adds", lambda: failed, needed=own)]


def plugin_checks() -> list[Check]:
    """One line for gatekit's own plugins, one for others', and what plugins look at."""
    from gatekit.registry import registry

    plugins = registry().plugins.values()
    found = [Check("plugins", "samplers, models, strategies", lambda: _plugins(own=True), True)]
    if any(info.package != OWN_PACKAGE for info in plugins) or registry().clashes:
        found.append(Check("more plugins", "what they add", lambda: _plugins(own=False)))
    for plugin in registry().manager.get_plugins():
        for start, needs in getattr(plugin, "UNAVAILABLE", {}).items():
            found.append(_unavailable(start, needs))
    for impl in registry().manager.hook.gatekit_register_checks.get_hookimpls():
        make: Any = impl.function
        info = registry().plugins.get(str(impl.plugin_name))
        own = info is not None and info.package == OWN_PACKAGE
        found += _made(f"checks of {impl.plugin_name}", make, own)
    return found


def _unavailable(start: str, needs: str) -> Check:
    absent = Finding("missing", "what the plugin needs is not installed", needs)
    return Check(start, f"names that start with {start}", lambda: absent)


def _plugins(*, own: bool) -> Finding:
    from gatekit.pluginlimit import LEFT_OUT
    from gatekit.registry import GROUP, registry

    known = registry()
    infos = [i for i in known.plugins.values() if (i.package == OWN_PACKAGE) == own]
    left_out = [info.name for info in infos if info.error == LEFT_OUT]
    infos = [info for info in infos if info.name not in left_out]
    broken = [f"{info.name}: {info.error}" for info in infos if info.error]
    if not own:
        broken += [f"two of one name: {text}" for text in known.clashes.values()]
    if broken:
        remedy = "reinstall gatekit" if own else "update or uninstall them"
        return Finding("broken", "; ".join(broken), remedy)
    if left_out and not infos:
        return Finding("ok", f"{LEFT_OUT}: {', '.join(left_out)}")
    if not infos:
        return Finding("missing", f"no entry points of {GROUP!r}", "pip install -e . or a wheel")
    names = [i.name if own else f"{i.name} ({i.package} {i.version})".strip() for i in infos]
    return Finding("ok", ", ".join(names))
