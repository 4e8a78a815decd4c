"""Values on disk: a folder a run, a file of JSON lines a cell, a line a sample."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gatekit import InputError, write_atomic
from gatekit_tinywan.study.cell import Cell

ABOUT = "about.json"
Row = dict[str, Any]


class Store:
    """Values of one run: one set of weights, one list of prompts, one device and arithmetic.

    Args:
        folder: Of this run.
        about: What the run is; written there, and checked where it is there already.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        if about is not None:
            (folder / "cells").mkdir(parents=True, exist_ok=True)
            write_atomic(folder / ABOUT, (json.dumps(about, indent=1) + "\n").encode())
        self.about: dict[str, Any] = json.loads((folder / ABOUT).read_text())

    def file(self, cell: Cell) -> Path:
        """Where a cell's values are: by what it does, whatever its row is called."""
        return self.folder / "cells" / f"{cell.identity}.jsonl"

    def read(self, cell: Cell) -> dict[int, Row]:
        """Sample number -> its values. A line that was cut off counts for nothing."""
        return self.read_file(self.file(cell))

    @staticmethod
    def read_file(file: Path) -> dict[int, Row]:
        """As ``read``."""
        rows: dict[int, Row] = {}
        if not file.exists():
            return rows
        for line in file.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if "i" in row:
                rows[row["i"]] = row
        return rows

    def append(self, cell: Cell, rows: Iterable[Row]) -> None:
        """Add lines at once; a later line of a sample replaces an earlier one."""
        file = self.file(cell)
        begun = file.exists()
        with file.open("a") as out:
            if begun and not file.read_bytes().endswith(b"\n"):
                out.write("\n")  # what an interruption cut off stays a line of its own
            if not begun:
                out.write(json.dumps({"cell": asdict(cell)}) + "\n")
            out.write("".join(json.dumps(row) + "\n" for row in rows))


def find(out: Path, split: str, run: str | None = None) -> Store:
    """The run to report: the one named, else the newest of this split.

    Raises:
        InputError: There is none.
    """
    found = [f.parent for f in out.glob(f"{run or '*'}/{ABOUT}")]
    stores = [s for s in map(Store, found) if run or s.about["split"] == split]
    if not stores:
        raise InputError(
            f"no run of split {split!r} there", where=str(out), remedy="run the study first"
        )
    return max(stores, key=_changed)


def _changed(store: Store) -> float:
    """When a value was last added; 0 for a run that ended before it had any."""
    return max((file.stat().st_mtime for file in store.folder.glob("cells/*")), default=0.0)
