"""The sweep file: which schedules, on which prompts and seeds, measured how."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

import gatekit

NAME = r"^[^\s,=][^,=]*$"
FOLDER = r"^[^\s,=./\\][^,=/\\]*$"  # what can be the name of a folder here
MOST_SEEDS, MOST_ARMS, MOST_CELLS = 100_000, 5_000, 1_000_000  # an arm is planned, a cell run
Values = Annotated[tuple[Any, ...], Field(min_length=1)]
Changes = dict[str, Any]
Axes = dict[str, Values]


class Origin(gatekit.Params):
    """A schedule and what it is changed by.

    Attributes:
        base: A schedule file, beside the sweep file; default: the sweep's.
        set: Keys and values, as for ``--set``.
    """

    base: str | None = None
    set: Changes = Field(default_factory=dict)


class Case(Origin):
    """One entry of ``list``."""

    name: str = Field(pattern=NAME, max_length=80)


def as_prompt(value: Any) -> Any:
    """A text is short for ``{prompt: text}``."""
    return {"prompt": value} if isinstance(value, str) else value


class Prompt(gatekit.Params):
    """What one video is made from; a cluster of the statistics."""

    prompt: str = Field(min_length=1)
    negative_prompt: str | None = None
    image: str | None = None
    last_image: str | None = None


def as_seeds(value: Any) -> Any:
    """A number n is short for 0 ... n - 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 0 < value <= MOST_SEEDS:
        raise ValueError(f"must be a list of seeds, or their number, from 1 to {MOST_SEEDS}")
    return tuple(range(value))


Cases = tuple[Case, ...]
Prompts = Annotated[tuple[Annotated[Prompt, BeforeValidator(as_prompt)], ...], Field(min_length=1)]
Seeds = Annotated[
    tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), BeforeValidator(as_seeds)
]
Groups = tuple[Axes, ...]
Keep = Literal["video"]


class SweepFile(gatekit.Params):
    """A sweep: every case of ``list`` at every point of ``zip`` and ``grid``, prompts and seeds.

    Attributes:
        base: Schedule of the cases that name none.
        set: Changes of every case, before its own.
        list: Cases by name; none: one, the base itself.
        zip: Groups of keys whose values go together, first with first.
        grid: Keys whose values are all combined.
        prompts: Texts, or mappings with images.
        seeds: A list, or a number n for 0 ... n - 1.
        noise: ``prompt``: each prompt and seed has its own noise, the same for every arm; ``seed``:
            prompts share it too.
        metrics: Names.
        reference: What metrics compare with: a case, at each point, or one fixed schedule.
        baseline: The case that differences are taken to, at each point; default: the first.
        keep: ``video`` keeps an mp4 of every cell; latents are always kept.
    """

    version: Literal[1]
    name: str = Field(pattern=FOLDER, max_length=80)
    base: str | None = None
    set: Changes = Field(default_factory=dict)
    list: Cases = ()
    zip: Groups = ()
    grid: Axes = Field(default_factory=dict)
    prompts: Prompts
    seeds: Seeds = (0,)
    noise: Literal["prompt", "seed"] = "prompt"
    metrics: tuple[str, ...] = ()
    reference: str | Origin | None = None
    baseline: str | None = None
    keep: tuple[Keep, ...] = ()


def _check_number(document: gatekit.Document[SweepFile]) -> None:
    """A few lists multiply to more than could be counted out: told before anything is made."""
    file = document.value
    arms = max(1, len(file.list)) * prod(len(values) for values in file.grid.values())
    arms *= prod(len(next(iter(group.values()), (0,))) for group in file.zip)
    cells = arms * len(file.prompts) * len(file.seeds)
    for number, most, what in ((arms, MOST_ARMS, "arms"), (cells, MOST_CELLS, "cells")):
        if number > most:
            raise gatekit.ScheduleError(
                f"{number:,} {what}, of which {most:,} are the most",
                where=document.where(("grid",) if file.grid else ()),
                remedy="make several sweeps of it, or vary fewer keys at once",
            )


def load_sweep(path: Path) -> gatekit.Document[SweepFile]:
    """Read a sweep file and check what its keys tell together.

    Raises:
        ScheduleError: With file, line, column, value and remedy.
    """
    document = gatekit.load_document(path, SweepFile, "sweep file")
    file = document.value
    _check_number(document)
    names = [case.name for case in file.list]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise gatekit.ScheduleError(
                "two cases of one name",
                where=document.where(("list", i, "name")),
                value=name,
                remedy="give each its own",
            )
    for key in ("prompts", "seeds"):
        seen = set[str]()
        for i, value in enumerate(getattr(file, key)):
            if repr(value) in seen:
                raise gatekit.ScheduleError(
                    f"the same of {key} twice, which would count as two pieces of evidence",
                    where=document.where((key, i)),
                    remedy="keep one of them",
                )
            seen.add(repr(value))
    for i, group in enumerate(file.zip):
        lengths = {key: len(values) for key, values in group.items()}
        if len(set(lengths.values())) > 1:
            raise gatekit.ScheduleError(
                "keys that go together need as many values each",
                where=document.where(("zip", i)),
                value=lengths,
                remedy="make the lists equally long, or use 'grid'",
            )
    for key in ("reference", "baseline"):
        given = getattr(file, key)
        if isinstance(given, str) and given not in names:
            known = ", ".join(names) or "there is none: add 'list'"
            raise gatekit.ScheduleError(
                "no case of this name",
                where=document.where((key,)),
                value=given,
                remedy=f"known: {known}",
            )
    _check_metrics(document)
    return document


def _check_metrics(document: gatekit.Document[SweepFile]) -> None:
    file = document.value
    for i, name in enumerate(file.metrics):
        where = document.where(("metrics", i))
        cls = gatekit.find_metric(name, where)
        if "reference" in cls.needs and file.reference is None:
            raise gatekit.ScheduleError(
                f"the metric {name!r} compares with a reference, and there is none",
                where=where,
                remedy="add 'reference: CASE', or a schedule: 'reference: {base: FILE}'",
            )
        for j, prompt in enumerate(file.prompts if "caption" in cls.needs else ()):
            try:
                cls().check_prompt(prompt.prompt)
            except gatekit.UserError as exc:
                raise gatekit.ScheduleError(
                    exc.message,
                    where=document.where(("prompts", j)),
                    value=exc.value,
                    remedy=exc.remedy,
                ) from exc
