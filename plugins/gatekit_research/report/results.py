"""What a sweep's folder holds, by arm: values, what they took, where files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from gatekit_research.sweep.store import VIDEOS, Line, Store, read_about

Key = tuple[int, int]  # prompt, seed


@dataclass(frozen=True)
class ArmResults:
    """One arm's finished cells.

    Attributes:
        name: Of the arm.
        index: Its number, and so its colour.
        about: Its entry of ``sweep.json``.
        lines: (prompt, seed) -> line.
        failed: (prompt, seed) -> what went wrong.
    """

    name: str
    index: int
    about: dict[str, Any]
    lines: dict[Key, Line]
    failed: dict[Key, str]

    def values(self, metric: str) -> dict[Key, float]:
        """A metric's values."""
        found = {key: line["metrics"].get(metric) for key, line in self.lines.items()}
        return {key: value for key, value in found.items() if value is not None}

    def mean(self, what: str) -> float | None:
        """Mean of ``nfe``, ``passes``, ``bits``, ``bytes``, ``seconds`` or ``wall``."""
        known = [line[what] for line in self.lines.values() if line.get(what) is not None]
        return fmean(known) if known else None


@dataclass(frozen=True)
class Results:
    """A sweep as its folder has it now.

    Attributes:
        folder: Of the sweep.
        about: ``sweep.json``.
        arms: Compared ones; a reference alone is none of them.
        reference: The fixed reference, if there is one.
    """

    folder: Path
    about: dict[str, Any]
    arms: tuple[ArmResults, ...]
    reference: ArmResults | None

    @property
    def metrics(self) -> list[str]:
        """Metrics, parts of one by their own names, in the order of the sweep.

        What an older form of the sweep asked for may stand in lines, and is none of them.
        """
        named = list(self.about["metrics"])
        seen = dict.fromkeys(m for a in self.arms for x in a.lines.values() for m in x["metrics"])
        seen = [m for m in seen if m.partition(".")[0] in named]
        return sorted(seen, key=lambda m: (named.index(m.partition(".")[0]), seen.index(m)))

    def metric(self, name: str) -> dict[str, Any]:
        """What a metric is: direction, unit, what it says."""
        return self.about["metrics"][name.partition(".")[0]]

    def arm(self, name: str | None) -> ArmResults | None:
        """The compared arm of a name."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def video(self, arm: ArmResults, key: Key) -> Path | None:
        """A cell's mp4, where it was kept."""
        line = arm.lines.get(key)
        path = Store(self.folder).file(VIDEOS, line["cell"]) if line else None
        return path if path is not None and path.exists() else None


def read_results(folder: Path) -> Results:
    """Read a sweep's folder. Raises InputError where it is none."""
    about, lines = read_about(folder), Store(folder).read()
    found: list[ArmResults] = []
    index = 0
    for entry in about["arms"]:
        done: dict[Key, Line] = {}
        failed: dict[Key, str] = {}
        for place, digest in entry["cells"].items():
            prompt, seed = map(int, place.split("/"))
            line = lines.get(digest)
            if line is not None and line["status"] == "done":
                done[prompt, seed] = line
            elif line is not None:
                failed[prompt, seed] = line["error"]
        found.append(ArmResults(entry["name"], index, entry, done, failed))
        index += entry["compared"]
    reference = next((arm for arm in found if not arm.about["compared"]), None)
    return Results(folder, about, tuple(a for a in found if a.about["compared"]), reference)
