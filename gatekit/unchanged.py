"""Weight files that change while a run uses them: told, before what is read is something else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gatekit.errors import WeightsError

Stamp = tuple[int, int, int, int]  # device, inode, bytes, time of the last change
KEPT = "put the file back as it was and go on with the run, or start it anew"


class Unchanged:
    """What files looked like when a run began.

    A mapped file that is cut short ends the process at the next access beyond its end, and one
    that is written to changes the weights of a loaded model. Neither can be caught when it
    happens, so it is looked for before each phase and before each evaluation.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._stamps: dict[Path, dict[Path, Stamp | None]] = {}
        for file in files:
            self._stamps[file] = {part: stamp(part) for part in parts(file)}

    def check(self, files: Iterable[Path]) -> None:
        """Raise WeightsError unless these are the files that they were."""
        for file in files:
            for part, before in self._stamps.get(file, {}).items():
                now = stamp(part)
                if now != before:
                    raise changed(part, before, now)

    def check_held(self, files: Iterable[Path]) -> None:
        """As ``check``, for files that are open or mapped: one replaced or removed is still held.

        Raises:
            WeightsError: A file was cut, or written to.
        """
        for file in files:
            for part, before in self._stamps.get(file, {}).items():
                now = stamp(part)
                same_file = before is not None and now is not None and now[:2] == before[:2]
                if same_file and now != before:
                    raise changed(part, before, now)


def parts(file: Path) -> list[Path]:
    """The file, or the files of a folder."""
    return sorted(p for p in file.rglob("*") if p.is_file()) if file.is_dir() else [file]


def stamp(file: Path) -> Stamp | None:
    """What tells one state of a file from another; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def changed(file: Path, before: Stamp | None, now: Stamp | None) -> WeightsError:
    """The error for a file that is not what it was."""
    if now is None:
        return WeightsError(
            "this file was removed while a run uses it", where=str(file), remedy=KEPT
        )
    if before is not None and before[2] != now[2]:
        how = f"{before[2]:,} bytes became {now[2]:,}"
    else:
        how = "it was replaced" if before is None or before[:2] != now[:2] else "it was written to"
    return WeightsError(
        f"this file changed while a run uses it: {how}", where=str(file), remedy=KEPT
    )
