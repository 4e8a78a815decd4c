"""The study made ready: captions, arms, plans, cells, in the terms of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_research.sweep import arms as sweep_arms
from gatekit_research.sweep import setup as sweep_setup
from gatekit_research.sweep.cells import Cell, digest, inputs_of, inputs_record, plan_record
from gatekit_research.sweep.file import SweepFile
from gatekit_tinywan.batch import Pool
from gatekit_tinywan.gating.arms import FP16, STEPS, Arm, schedule_of
from gatekit_tinywan.study.prompts import scenes_of

if TYPE_CHECKING:
    from gatekit_tinywan.world import SceneBatch

METRICS = ("caption", "latent_rmse")  # the first is the one to conclude from
REFERENCE = FP16
VIDEO = {"width": 96, "height": 96, "frames": 25, "fps": 16}
Key = tuple[int, int]  # prompt, seed


@dataclass(frozen=True)
class Options:
    """What all arms share.

    Attributes:
        prompts: How many captions of the split ``report``.
        seeds: Noises a caption.
        steps: Of the grid.
        video: Size.
        compute: Arithmetic of the experts.
        device: Where.
        folders: Of weight files.
    """

    prompts: int = 256
    seeds: int = 2
    steps: int = STEPS
    video: Mapping[str, int] = field(default_factory=lambda: VIDEO)
    compute: str = "fp32"
    device: str = "cpu"
    folders: Sequence[Path] = ()


def plan_of(arm: Arm, options: Options, files: bool = True) -> gatekit.Plan:
    """An arm's plan."""
    schedule = schedule_of(arm, dict(options.video), options.steps, options.compute)
    return gatekit.resolve(
        schedule, models_dir=list(options.folders), device=options.device, require_files=files
    )


class Setup:
    """Plans and cells of all arms.

    Args:
        arms: The first is what errors are taken to.
        options: What they share.

    Attributes:
        options: What the arms share.
        arms: As a sweep has them.
        cells: Of all.
        by: (arm, (prompt, seed)) -> cell.
        keys: Prompts and seeds, prompt by prompt.
    """

    def __init__(self, arms: Sequence[Arm], options: Options) -> None:
        pool = Pool()
        self.options = options
        self.study = {arm.name: arm for arm in arms}
        self.arms = tuple(
            sweep_arms.Arm(
                name=arm.name,
                case=arm.table,
                point={},
                plan=pool.share(plan_of(arm, options)),
                reference=REFERENCE,
                baseline=arm.baseline,
            )
            for arm in arms
        )
        self._rows, self.captions = _captions(options.prompts)
        self.file = SweepFile.model_validate(
            {
                "version": 1,
                "name": "precision-gating",
                "prompts": self.captions,
                "seeds": list(range(options.seeds)),
                "metrics": METRICS,
            }
        )
        self.keys: list[Key] = [(p, s) for p in range(options.prompts) for s in self.file.seeds]
        self.by: dict[tuple[str, Key], Cell] = {}
        referred: dict[Key, str] = {}
        for arm in self.arms:
            record = plan_record(arm.plan)
            for prompt, seed in self.keys:
                inputs = inputs_of(self.file.prompts[prompt], seed, self.file.noise, Path())
                name = digest([record, inputs_record(inputs)])
                own = referred.setdefault((prompt, seed), name)  # that of the first arm
                self.by[arm.name, (prompt, seed)] = Cell(name, arm, prompt, seed, inputs, own)
        self.cells = tuple(self.by.values())

    @cached_property
    def about(self) -> dict[str, Any]:
        """``sweep.json``."""
        return sweep_setup.Setup(self.file, self.arms, self.cells).about()

    def scenes_of(self, cells: Sequence[Cell]) -> SceneBatch:
        """What the cells' captions say."""
        return scenes_of("report", [self._rows[cell.prompt] for cell in cells])


def _captions(count: int) -> tuple[list[int], list[str]]:
    """The first captions of the split ``report``, each once: rows and texts."""
    size = count + 16
    while True:
        texts = scenes_of("report", range(size)).captions()
        first: dict[str, int] = {}
        for row, text in enumerate(texts):
            first.setdefault(text, row)
        if len(first) >= count:
            return list(first.values())[:count], list(first)[:count]
        size *= 2
