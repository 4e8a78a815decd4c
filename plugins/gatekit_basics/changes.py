"""What ``--set`` changed, as the keys of a schedule that extends the one it changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import gatekit

Plain = Mapping[str, Any]
_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*")


def extending(schedule: Path, out: Path, overrides: Sequence[str]) -> list[str]:
    """Lines of a file that is a schedule with ``--set`` applied, but for its ``sigmas``.

    It extends the schedule where that can be; else, as of a result, it holds all of it.

    Args:
        schedule: The schedule's file.
        out: The file to be written.
        overrides: Texts ``KEY=VALUE``.
    """
    said = [f"# with --set {' '.join(text.split())}" for text in overrides]
    if _result(schedule):
        return [*said, *as_yaml(_without_sigmas(gatekit.load_schedule(schedule, overrides)))]
    link = f"extends: {json.dumps(os.path.relpath(schedule.resolve(), out.resolve().parent))}"
    if not overrides:
        return [link]
    changed = _without_sigmas(gatekit.load_schedule(schedule, overrides))
    try:
        base = _without_sigmas(gatekit.load_schedule(schedule))
    except gatekit.ScheduleError:  # that is no schedule without what was set
        return [*said, *as_yaml(changed)]
    before, after = _by_name(base["phases"]), _by_name(changed["phases"])
    if list(after) != [name for name in before if name in after]:
        return [*said, *as_yaml(changed)]
    return [*said, link, *as_yaml(changes(base, changed))]


def changes(base: Plain, changed: Plain) -> dict[str, Any]:
    """Keys that make ``base`` into ``changed`` where a file extends it.

    Mappings key by key, null for what went, phases by name; whatever has a ``use`` is told as a
    whole, since another plugin keeps none of the parameters.

    Args:
        base: A schedule as plain data (``Schedule.to_dict``).
        changed: The same with changes.
    """
    found: dict[str, Any] = {}
    for key in [*changed, *(key for key in base if key not in changed)]:
        before, after = base.get(key), changed.get(key)
        if before == after:
            continue
        if key == "phases":
            before, after = _by_name(before), _by_name(after)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            old, new = cast(Plain, before), cast(Plain, after)
            whole = dict(new) | dict.fromkeys(old.keys() - new.keys())
            found[key] = whole if "use" in new else changes(old, new)
        else:
            found[key] = after
    return found


def _result(schedule: Path) -> bool:
    """Whether what loads as a schedule is a video, an image or a latent, which none can extend."""
    if schedule.is_dir():
        return True
    with schedule.open("rb") as file:
        return b"\0" in file.read(64)


def _without_sigmas(schedule: gatekit.Schedule) -> dict[str, Any]:
    found = dict(schedule.to_dict())
    found.pop("sigmas", None)
    return found


def _by_name(phases: Any) -> dict[str, Any]:
    return {str(phase["name"]): phase for phase in cast("Sequence[Plain]", phases or ())}


def as_yaml(keys: Plain, indent: int = 0) -> list[str]:
    """Lines of YAML: mappings in blocks, all else as JSON, which is YAML too."""
    lines: list[str] = []
    for key, value in keys.items():
        plain = _PLAIN_KEY.fullmatch(key) and key.lower() not in ("true", "false", "null")
        name = key if plain else json.dumps(key, ensure_ascii=False)
        if isinstance(value, Mapping) and value:
            lines.append(f"{' ' * indent}{name}:")
            lines += as_yaml(cast(Plain, value), indent + 2)
        else:
            lines.append(f"{' ' * indent}{name}: {json.dumps(value, ensure_ascii=False)}")
    return lines
