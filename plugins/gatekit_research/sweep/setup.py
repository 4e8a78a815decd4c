"""A sweep made ready: the same in the process that leads and in those that work for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.sweep.arms import Arm, arms_of
from gatekit_research.sweep.bench import Bench
from gatekit_research.sweep.cells import Cell, cells_of
from gatekit_research.sweep.file import SweepFile, load_sweep
from gatekit_research.sweep.order import ordered
from gatekit_research.sweep.store import Store


@dataclass(frozen=True)
class Setup:
    """A sweep file with everything looked up.

    Attributes:
        file: Its content.
        arms: In the order they run in.
        cells: Arm by arm, in that order; a cell of several arms is there once for each.
    """

    file: SweepFile
    arms: tuple[Arm, ...]
    cells: tuple[Cell, ...]

    @classmethod
    def of(
        cls, path: Path, models_dir: Sequence[Path] | None = None, device: str | None = None
    ) -> Setup:
        """Read, resolve, order. Raises UserError, at the sweep file's lines."""
        document = load_sweep(path)
        arms = tuple(ordered(arms_of(document, models_dir=models_dir, device=device)))
        return cls(document.value, arms, cells_of(document, arms))

    def bench(self, store: Store) -> Bench:
        """Where its cells run."""
        referred = {c.reference for c in self.cells if c.reference}
        videos = "video" in self.file.keep
        return Bench(store, self.file.metrics, referred, videos, len(self.file.prompts))

    def about(self) -> dict[str, Any]:
        """``sweep.json``: what the report needs besides the lines."""
        return {
            "name": self.file.name,
            "gatekit": gatekit.__version__,
            "prompts": [p.prompt for p in self.file.prompts],
            "seeds": list(self.file.seeds),
            "noise": self.file.noise,
            "metrics": {name: _metric(name) for name in self.file.metrics},
            "arms": [
                {
                    "name": arm.name,
                    "case": arm.case,
                    "point": dict(arm.point),
                    "reference": arm.reference,
                    "baseline": arm.baseline,
                    "compared": arm.compared,
                    "phases": arm.plan.to_json()["phases"],
                    "schedule": arm.plan.resolved(),
                    "variants": {
                        key: {"storage": facts.storage, "bits": facts.bits_per_weight}
                        for key, facts in arm.plan.facts.items()
                    },
                    "cells": {f"{c.prompt}/{c.seed}": c.digest for c in self.cells if c.arm is arm},
                }
                for arm in sorted(self.arms, key=lambda arm: arm.name != "reference")
            ],
        }


def _metric(name: str) -> dict[str, Any]:
    cls = gatekit.find_metric(name)
    return {
        "higher_is_better": cls.higher_is_better,
        "perfect": cls.perfect,
        "unit": cls.unit,
        "binary": cls.binary,
        "needs": sorted(cls.needs),
        "says": (cls.__doc__ or "").strip().splitlines()[0].replace("``", ""),
    }
