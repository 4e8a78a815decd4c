"""What a study would cost, counted on plans."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import gatekit
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import FLOWS, Cell
from gatekit_tinywan.study.references import PROFILE_ROWS, PROFILE_STEPS, TRIES

STAND_IN = [[1.0, 4.0], [0.9, 4.0], [0.5, 1.0], [0.01, 1.0]]  # a profile to count steps with


def count(
    bench: Bench, cells: Sequence[Cell], prompts: int, steps: int, judge: bool = True
) -> Iterator[str]:
    """A line a cell, and the sums: evaluations of the guided denoiser a prompt, and passes.

    Cells that are in several sets count once, and those that cannot be planned not at all.
    """
    nfe = passes = 0
    planned: dict[str, Cell] = {}
    failed: set[str] = set()
    for cell in cells:
        if cell.identity in planned or cell.identity in failed:
            continue
        try:
            plan = bench.fitted(cell.with_measured(STAND_IN, stand_in), files=False)
        except gatekit.GatekitError as error:
            failed.add(cell.identity)
            yield f"{cell.base:5}  {cell.name}: cannot be planned: {error}"
            continue
        planned[cell.identity] = cell
        yield f"{cell.base:5}  {cell.name}: {plan.nfe} evaluations, {plan.passes} passes"
        nfe, passes = nfe + plan.nfe, passes + plan.passes
    yield f"{_of(len(planned), 'cell')}: {nfe} evaluations a prompt, {passes} passes of a model"
    if failed:
        yield f"{_of(len(failed), 'cell')} cannot be planned, and would fail"
    beside = _beside(planned.values(), steps)
    flows, own = beside.flows, beside.own
    if flows:
        yield f"references {', '.join(flows)}: {own} evaluations a prompt"
    if beside.profiles:
        yield f"fine runs of {', '.join(beside.profiles)}: {beside.measured} evaluations, once"
    if beside.searching:
        yield f"grids that are tried: at most {beside.searching} evaluations, once"
    total = prompts * (nfe + own) + beside.measured + beside.searching
    videos = (len(planned) + len(flows)) * prompts
    judged = f", {_of(videos, 'video')} to judge" if judge else ""
    yield f"{_of(prompts, 'prompt')}: {total} evaluations{judged}"


def listing(sets: Mapping[str, Sequence[Cell]], prompts: int, steps: int) -> Iterator[str]:
    """A line a set, and one for all of them: cells, and evaluations with all that they need.

    Nothing is planned: a cell counts with the evaluations that it may take.
    """
    every = {**sets, "--all": [cell for cells in sets.values() for cell in cells]}
    for name, found in every.items():
        cells = {cell.identity: cell for cell in found}.values()
        beside = _beside(cells, steps)
        once = beside.measured + beside.searching
        most = prompts * (sum(c.evaluations for c in cells) + beside.own) + once
        yield f"  {name:11} {_of(len(cells), 'cell'):>9}, at most {most:9,} evaluations"


class _Beside(NamedTuple):
    """What cells need beside their own runs: evaluations a prompt, and once."""

    flows: Sequence[str]
    own: int
    profiles: Sequence[str]
    measured: int
    searching: int


def _beside(cells: Collection[Cell], steps: int) -> _Beside:
    flows = sorted({flow for cell in cells for flow in cell.flows})
    profiles = sorted({FLOWS[cell.base] for cell in cells if cell.measured})
    tries = {(cell.base, cell.evaluations) for cell in cells if cell.searched}
    return _Beside(
        flows,
        len(flows) * (steps + steps // 2),
        profiles,
        len(profiles) * PROFILE_STEPS * len(PROFILE_ROWS),
        TRIES * len(PROFILE_ROWS) * sum(evaluations for _, evaluations in tries),
    )


def stand_in(steps: int) -> list[float]:
    """A grid to count steps with."""
    return [1.0 - i / steps for i in range(steps)] + [0.0]


def _of(number: int, what: str) -> str:
    """A number of things: ``1 prompt``, ``2 prompts``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
