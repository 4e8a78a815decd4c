"""Which files a schedule may name: those below its own folder and the model folders.

A schedule may come from a stranger. A file that whoever starts the program names, by an option or
in code, is their own and may be anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gatekit.errors import ScheduleError

VARIABLE = "GATEKIT_ALLOW_OUTSIDE"  # so that processes that a command starts allow it too
OPTION = "--allow-outside"


def outside_allowed(given: bool | None = None) -> bool:
    """Whether schedules may name any file: as given, else as ``--allow-outside`` says."""
    return os.environ.get(VARIABLE, "") not in ("", "0") if given is None else given


def plain(path: Path) -> Path:
    """An absolute path without ``..``: what is checked is what is opened."""
    return Path(os.path.normpath(path.absolute()))


def is_inside(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path is below one of some folders.

    As written, or with links followed on both sides. A link inside a folder may lead out of it:
    who can place one there can place the file too, and shared model folders are full of them.
    """
    roots = list(folders)
    if any(plain(path).is_relative_to(plain(root)) for root in roots):
        return True
    try:
        real = path.resolve()
        return any(real.is_relative_to(root.resolve()) for root in roots)
    except (OSError, RuntimeError, ValueError):
        return False


def outside_error(name: object, where: str, folders: str, instead: str = "") -> ScheduleError:
    """The error for a file outside."""
    return ScheduleError(
        f"this file is outside {folders}",
        where=where,
        value=name,
        remedy=f"{instead}if you trust this schedule, add {OPTION}",
    )
