"""Reading a schedule: the file, the files it extends, and overrides, merged as trees of places."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatekit.embed import Carried, carries, read_embedded
from gatekit.errors import ScheduleError
from gatekit.jsontext import read_json
from gatekit.merge import merge, override
from gatekit.outside import is_inside, outside_allowed, outside_error, plain
from gatekit.schedule import Schedule
from gatekit.suggest import did_you_mean
from gatekit.yamlparse import parse, parse_value, read_text
from gatekit.yamlsource import Node, items, of_value

MAX_EXTENDS = 16
RECORD = "run.json"  # of a run folder


@dataclass(frozen=True)
class Option:
    """A value that an option of its own gives, such as ``--start 0.7``.

    Attributes:
        name: The option.
        key: What it sets.
        value: Its text, read as YAML.
    """

    name: str
    key: str
    value: str


@dataclass(frozen=True)
class Override:
    """A value that another file gives, told at that file's lines (``Document.override``).

    Attributes:
        key: What it sets, as in ``--set KEY=VALUE``.
        node: The value, with its place.
        where: Place of the key, for messages.
    """

    key: str
    node: Node
    where: str


Overrides = Mapping[str, Any] | Sequence[str | Option | Override] | None


def load_schedule(
    path: str | Path, overrides: Overrides = None, *, allow_outside: bool | None = None
) -> Schedule:
    """Read a schedule file, what it extends, and overrides.

    Args:
        path: A YAML file; or a result that gatekit made, which carries its schedule.
        overrides: ``{"phases.high.sampler.eta": 0.2}``, or texts ``KEY=VALUE`` whose values
            are read as YAML, or values of a ``Document``. Phases are addressed by name or number;
            None (null) takes a key out.
        allow_outside: Whether the file may name files outside its own folder and the model
            folders; None: as ``--allow-outside`` says. Overrides always may.

    Raises:
        ScheduleError: With file, line, column, key, value and remedy.
    """
    path, allowed = Path(path), outside_allowed(allow_outside)
    if carries(path):
        return of_carried(read_embedded(path), path, overrides, allow_outside=allowed)
    refuse_run(path)
    folder = path.resolve().parent
    root = extended(path, (), None if allowed else folder)
    return Schedule.from_tree(_overridden(root, overrides), str(path), folder, allowed)


def of_carried(
    carried: Carried,
    path: Path,
    overrides: Overrides = None,
    *,
    allow_outside: bool | None = None,
) -> Schedule:
    """The schedule that a result carries, no more trusted than a file.

    Args:
        carried: From ``read_embedded``.
        path: The result, for messages.
        overrides: As in ``load_schedule``.
        allow_outside: As in ``load_schedule``.

    Raises:
        ScheduleError: As ``load_schedule``.
    """
    root = _overridden(parse(carried.schedule, str(path)), overrides)
    return Schedule.from_tree(root, str(path), carried.folder, outside_allowed(allow_outside))


def overridden(
    data: Mapping[str, Any], overrides: Sequence[str | Option] | None, folder: Path | None
) -> Schedule:
    """A schedule kept as plain data (``to_dict``), with ``KEY=VALUE`` texts applied.

    Raises:
        ScheduleError: As ``load_schedule``.
    """
    return Schedule.from_tree(
        _overridden(of_value(data, "schedule"), overrides), "schedule", folder
    )


def refuse_run(path: Path) -> None:
    """Raise ScheduleError for a run folder or its record, which is no schedule."""
    folder = path if path.is_dir() else path.parent
    try:
        content = read_json(folder / RECORD)
        if path.name not in (folder.name, RECORD) or "fingerprint" not in content:
            return
        out, done = content.get("out"), content.get("status") == "done"
    except (OSError, ValueError, AttributeError, TypeError):
        return
    going_on = f"go on with it: gatekit run --resume {folder}"
    again = f"its result is {out}, which can be run again" if out else "give its schedule"
    what = "a run folder" if path.is_dir() else "the record of a run"
    raise ScheduleError(f"{what}, no schedule", where=str(path), remedy=again if done else going_on)


def _overridden(root: Node, overrides: Overrides) -> Node:
    if items(root) is None:  # no schedule, which an override would make look like one
        return root
    for key, value, where in _overrides(overrides):
        root = override(root, key, value, where)
    return root


def extended(
    path: Path, seen: tuple[Path, ...], inside: Path | None = None, where: str | None = None
) -> Node:
    """The tree of a file laid on the tree of the file it extends.

    Args:
        path: The file.
        seen: The files that extend it.
        inside: The folder that what is extended must be below; None: anywhere.
        where: Place of the ``extends``; None for the file that was asked for.
    """
    real = _real(path)
    if real in seen or len(seen) >= MAX_EXTENDS:
        chain = " -> ".join(p.name for p in (*seen, real))
        raise ScheduleError(
            "'extends' leads in a circle: " + chain,
            where=where,
            remedy="let one of them extend nothing",
        )
    if where is not None and not _is_file(path):
        names = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ScheduleError(
            "no such schedule to extend",
            where=where,
            value=str(path),
            remedy=did_you_mean(path.name, names, otherwise="paths are beside this file"),
        )
    root = parse(read_text(path), str(path))
    keys = items(root)
    if keys is None or "extends" not in keys:
        return root
    base = keys.pop("extends")
    at = f"{base.place}: extends"
    if not isinstance(base.value, str):
        raise ScheduleError(
            "'extends' is the path of one schedule",
            where=at,
            value=base.plain(),
            remedy="such as extends: other.yaml",
        )
    other = plain(path.parent / base.value)
    if inside is not None and not is_inside(other, [inside]):
        raise outside_error(base.value, at, "the schedule's folder", "copy it there; ")
    if not (path.is_absolute() or Path(base.value).is_absolute()):  # named as whoever asked does
        other = Path(os.path.relpath(other))
    return merge(extended(other, (*seen, real), inside, at), root)


def _real(path: Path) -> Path:
    """The path without links; as it is where the system cannot tell."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for any file
        return False


def _overrides(
    overrides: Overrides,
) -> list[tuple[str, Node, str]]:
    if overrides is None:
        return []
    if isinstance(overrides, Mapping):
        found: list[tuple[str, Node, str]] = []
        for key, value in overrides.items():
            where = f"override {key}={value!r}"
            found.append((key, of_value(value, where), where))
        return found
    return [parse_set(text) for text in overrides]


def parse_set(text: str | Option | Override) -> tuple[str, Node, str]:
    """``KEY=VALUE`` -> key, value read as YAML, and the option's name for messages."""
    if isinstance(text, Override):
        return text.key, text.node, text.where
    if isinstance(text, Option):
        where = f"{text.name} {text.value}"
        return text.key, parse_value(text.value, where), where
    where = f"--set {text}"
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ScheduleError(
            "an override needs a key and a value",
            where=where,
            remedy="--set KEY=VALUE, such as --set sigmas.steps=30",
        )
    return key.strip(), parse_value(value, where), where
