"""Arms: every schedule of a sweep, resolved before anything runs."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.sweep.file import Origin, SweepFile

REFERENCE = "reference"
Document = gatekit.Document[SweepFile]
Point = tuple[tuple[str, int, tuple[str | int, ...]], ...]  # key, number of its value, place


@dataclass(frozen=True)
class Arm:
    """One schedule of a sweep.

    Attributes:
        name: For people; unique.
        case: The case it comes from; empty where there is no ``list``.
        point: Axis key -> value.
        plan: What runs.
        reference: Name of the arm that its metrics compare with.
        baseline: Name of the arm that its differences are taken to.
        compared: Whether it is one of the compared, and not a reference alone.
    """

    name: str
    case: str
    point: Mapping[str, Any]
    plan: gatekit.Plan
    reference: str | None
    baseline: str | None
    compared: bool = True


def arms_of(
    document: Document, *, models_dir: Sequence[Path] | None = None, device: str | None = None
) -> tuple[Arm, ...]:
    """Every arm; a fixed reference is the first.

    Raises:
        ScheduleError: A key or a value that cannot be, at its line of the sweep file.
        PluginError: An unknown name.
        WeightsError: A file that is missing or of another kind.
    """
    file = document.value
    where: dict[str, Any] = {"models_dir": models_dir, "device": device, "require_files": True}
    cases: list[tuple[str, Origin, tuple[str | int, ...]]] = [
        (case.name, case, ("list", i)) for i, case in enumerate(file.list)
    ] or [("", Origin(), ())]
    points = list(_points(file))
    labels = _labels(file)
    found: list[Arm] = []
    fixed = isinstance(file.reference, Origin)
    if isinstance(file.reference, Origin):
        with _told(document, REFERENCE, ("reference",)):
            schedule = _schedule(document, file.reference, ("reference",), ())
            plan = gatekit.resolve(schedule, **where)
        found.append(Arm(REFERENCE, "", {}, plan, None, None, compared=False))
    first = file.baseline if file.baseline is not None else cases[0][0]
    for case, origin, at in cases:
        for point in points:
            values = {key: _value(document, place) for key, _, place in point}
            suffix = [f"{labels[key]}={_short(value)}" for key, value in values.items()]

            def named(case: str, suffix: Sequence[str] = suffix) -> str:
                return ", ".join([*([case] if case else []), *suffix]) or file.name

            with _told(document, named(case), at):
                plan = gatekit.resolve(_schedule(document, origin, at, point), **where)
            reference = REFERENCE if fixed else None
            if isinstance(file.reference, str):
                reference = named(file.reference)
            baseline = named(first) if file.list else _first_name(found)
            own = named(case)
            found.append(
                Arm(own, case, values, plan, reference, baseline if own != baseline else None)
            )
    _check_names(document, found)
    return tuple(found)


@contextlib.contextmanager
def _told(document: Document, name: str, at: tuple[str | int, ...]) -> Generator[None]:
    """Where an arm's own schedule is at fault: say of which arm, and its place in the sweep."""
    try:
        yield
    except gatekit.UserError as exc:
        file = document.where(())
        if exc.where is None or exc.where.startswith(file + ":"):
            raise
        where = f"{document.where(at)}: arm {name!r}: {exc.where}"
        raise type(exc)(exc.message, where=where, value=exc.value, remedy=exc.remedy) from exc


def _first_name(found: Sequence[Arm]) -> str | None:
    return next((arm.name for arm in found if arm.compared), None)


def _check_names(document: Document, found: Sequence[Arm]) -> None:
    times = Counter(arm.name for arm in found)
    for name, number in times.items():
        if number > 1:
            raise gatekit.ScheduleError(
                "two arms of one name",
                where=document.where(("list",) if document.value.list else ("grid",)),
                value=name,
                remedy="give cases other names, and axes no value twice",
            )


def _points(file: SweepFile) -> Iterator[Point]:
    """Every combination: of the places in each group of ``zip``, and of the values of ``grid``."""
    axes: list[list[Point]] = []
    for i, group in enumerate(file.zip):
        length = len(next(iter(group.values()), ()))
        axes.append([tuple((k, n, ("zip", i, k, n)) for k in group) for n in range(length)])
    for key, values in file.grid.items():
        axes.append([((key, n, ("grid", key, n)),) for n in range(len(values))])
    for chosen in itertools.product(*(axis for axis in axes if axis)):
        yield tuple(itertools.chain.from_iterable(chosen))


def _value(document: Document, place: tuple[str | int, ...]) -> Any:
    file = document.value
    kind, *rest = place
    if kind == "grid":
        return file.grid[str(rest[0])][int(rest[1])]
    return file.zip[int(rest[0])][str(rest[1])][int(rest[2])]


def _labels(file: SweepFile) -> dict[str, str]:
    """Axis key -> its last word, or all of it where two end alike."""
    keys = [key for group in file.zip for key in group] + list(file.grid)
    lasts = [key.rpartition(".")[2] for key in keys]
    return {k: s if lasts.count(s) == 1 else k for k, s in zip(keys, lasts, strict=True)}


def _short(value: Any) -> str:
    if isinstance(value, dict) and list(value) == ["use"]:  # pyright: ignore
        value = value["use"]  # pyright: ignore[reportUnknownVariableType]
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _schedule(
    document: Document, origin: Origin, at: tuple[str | int, ...], point: Point
) -> gatekit.Schedule:
    file = document.value
    base, place = origin.base, (*at, "base")
    if base is None:
        base, place = file.base, ("base",)
    if base is None:
        raise gatekit.ScheduleError(
            "no schedule is named",
            where=document.where(at),
            remedy="add 'base: SCHEDULE.yaml' to the sweep, or to each case",
        )
    path = document.beside(base, place)
    if not path.is_file():
        raise gatekit.ScheduleError(
            "no such schedule",
            where=document.where(place),
            value=base,
            remedy="its path is beside this file",
        )
    overrides = [document.override(key, ("set", key)) for key in file.set]
    overrides += [document.override(key, (*at, "set", key)) for key in origin.set]
    overrides += [document.override(key, p) for key, _, p in point]
    return gatekit.load_schedule(path, overrides)
