"""Cells: one arm on one prompt with one seed, named by everything its result depends on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.sweep.arms import Arm
from gatekit_research.sweep.file import Prompt, SweepFile
from gatekit_research.sweep.sources import sources_of


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        digest: Of schedule, weights, code, prompt and seed: equal where the result is.
        arm: Its arm.
        prompt: Number of its prompt.
        seed: As the sweep says; the noise is drawn from ``inputs.seed``.
        inputs: What the run is given.
        reference: Digest of the cell that its metrics compare with; its own where it is that.
    """

    digest: str
    arm: Arm
    prompt: int
    seed: int
    inputs: gatekit.Inputs
    reference: str | None = None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.arm.name}, prompt {self.prompt + 1}, seed {self.seed}"


def cells_of(document: gatekit.Document[SweepFile], arms: Sequence[Arm]) -> tuple[Cell, ...]:
    """Every cell, arm by arm.

    Args:
        document: The sweep; images are beside it.
        arms: Its arms, resolved.

    Raises:
        ScheduleError: An image outside the sweep's folder.
        InputError: An image that the family cannot use, at its prompt's line.
    """
    file, folder = document.value, document.folder
    for number, prompt in enumerate(file.prompts):
        for key in ("image", "last_image"):
            if name := getattr(prompt, key):
                document.beside(name, ("prompts", number, key))
    digests: dict[tuple[str, int, int], str] = {}
    cells: list[Cell] = []
    for arm in arms:
        plan = plan_record(arm.plan)
        for number, prompt in enumerate(file.prompts):
            for seed in file.seeds:
                inputs = inputs_of(prompt, seed, file.noise, folder)
                with _told(document.where(("prompts", number))):
                    arm.plan.family.check_inputs(inputs)
                key = (arm.name, number, seed)
                digests[key] = digest([plan, inputs_record(inputs)])
                cells.append(Cell(digests[key], arm, number, seed, inputs))
    referred = [(c.arm.reference, c.prompt, c.seed) if c.arm.reference else None for c in cells]
    return tuple(
        Cell(c.digest, c.arm, c.prompt, c.seed, c.inputs, digests[key] if key else None)
        for c, key in zip(cells, referred, strict=True)
    )


KEYS = {"-i": "image", "--last-image": "last_image"}  # of a prompt, for options in messages


@contextlib.contextmanager
def _told(where: str) -> Generator[None]:
    try:
        yield
    except gatekit.UserError as exc:
        option, colon, place = (exc.where or "").partition(": ")
        said = f"{KEYS.get(option, option)}{colon}{place}"
        at = f"{where}: {said}" if said else where
        raise type(exc)(exc.message, where=at, value=exc.value, remedy=exc.remedy) from exc


def inputs_of(prompt: Prompt, seed: int, noise: str, folder: Path) -> gatekit.Inputs:
    """The inputs of a run; with ``noise: prompt`` its seed is drawn from both."""
    mixed = hashlib.sha256(f"{seed}\0{prompt.prompt}".encode()).digest()
    return gatekit.Inputs(
        prompt=prompt.prompt,
        negative_prompt=prompt.negative_prompt,
        image=folder / prompt.image if prompt.image else None,
        last_image=folder / prompt.last_image if prompt.last_image else None,
        seed=int.from_bytes(mixed[:4], "big") >> 1 if noise == "prompt" else seed,
    )


def digest(content: Any) -> str:
    """24 hexadecimal digits of plain data."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def plan_record(plan: gatekit.Plan) -> Any:
    """What of a plan decides its results."""
    schedule = {k: v for k, v in plan.resolved().items() if k != "name"}
    return [
        schedule,
        [list(phase.sigmas) for phase in plan.phases],
        [identity(path) for path in plan.files()],
        sources_of(plan),
        version("torch"),
    ]


def inputs_record(inputs: gatekit.Inputs) -> Any:
    """What of the inputs decides a result; images by their bytes."""
    images = [identity(i)[1:] if i is not None else None for i in (inputs.image, inputs.last_image)]
    return [inputs.prompt, inputs.negative_prompt, inputs.seed, images]


@cache
def identity(path: Path) -> tuple[str, int, str]:
    """``gatekit.file_identity``, read once a process."""
    return gatekit.file_identity(path)
