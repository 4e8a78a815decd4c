"""``gatekit plugins``: what is installed, what each plugin offers, and which are broken."""

from __future__ import annotations

from typing import Any

from gatekit.cli.options import JsonOption


def plugins(as_json: JsonOption = False) -> None:
    """List the plugins and what each offers."""
    from gatekit.cli.options import print_json
    from gatekit.kinds import KINDS
    from gatekit.pluginlimit import LEFT_OUT
    from gatekit.registry import registry

    known = registry()
    found: list[dict[str, Any]] = []
    for info in known.plugins.values():
        offers: dict[str, list[str]] = {}
        for (kind, key), owner in sorted(known.owners.items(), key=str):
            if owner == info.name and key in known.table(kind):
                name = "/".join(key) if isinstance(key, tuple) else str(key)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
                offers.setdefault(KINDS[kind].label, []).append(name)
        if commands := _commands(known.manager.get_plugin(info.name)):
            offers["command"] = commands
        found.append(
            {
                "name": info.name,
                "package": info.package,
                "version": info.version,
                "module": info.module,
                "path": path_of(info.module),
                "error": info.error,
                "offers": offers,
            }
        )
    clashes = [
        {"kind": KINDS[kind].label, "name": key, "classes": text}
        for (kind, key), text in known.clashes.items()
    ]
    if as_json:
        print_json({"plugins": found, "clashes": clashes})
        return
    for entry in found:
        print(f"{entry['name']} ({entry['package']} {entry['version']})".replace(" )", ")"))
        print(f"  from: {entry['path'] or entry['module']}")
        if entry["error"] == LEFT_OUT:
            print(f"  not loaded: {LEFT_OUT}")
        elif entry["error"]:
            print(f"  BROKEN: {entry['error']}")
        for label, names in entry["offers"].items():
            print(f"  {label}: {', '.join(names)}")
    for clash in clashes:
        print(f"CLASH: {clash['kind']} {clash['name']!r} is offered by {clash['classes']}")


def path_of(module: str) -> str | None:
    """The file of a plugin's module, found without running any of it."""
    from importlib.util import find_spec

    top, _, below = module.partition(":")[0].partition(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    origin = spec.origin if spec is not None else None
    return f"{origin} ({module})" if origin and below else origin


def _commands(plugin: Any) -> list[str]:
    """Names of the commands that a plugin adds."""
    register = getattr(plugin, "gatekit_register_commands", None)
    if register is None:
        return []
    import typer

    app = typer.Typer()
    register(app)
    return [c.name or getattr(c.callback, "__name__", "?") for c in app.registered_commands]
