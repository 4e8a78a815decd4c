"""What is left of a sweep, and how long it will take: only from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatekit_research.sweep.arms import Arm
from gatekit_research.sweep.bench import label
from gatekit_research.sweep.cells import Cell


@dataclass(frozen=True)
class Outlook:
    """One arm's share of a sweep.

    Attributes:
        arm: Its name.
        cells: All.
        left: Those to be run.
        nfe: Evaluations of one.
        exact: Whether that is known; adaptive methods may take more.
        seconds: Expected for what is left; None where a variant was never timed.
    """

    arm: str
    cells: int
    left: int
    nfe: int
    exact: bool
    seconds: float | None


def outlooks(
    arms: Sequence[Arm],
    cells: Sequence[Cell],
    left: Iterable[Cell],
    lines: Iterable[Mapping[str, Any]],
) -> list[Outlook]:
    """Of every arm, in the order given.

    Args:
        arms: In order.
        cells: All of them.
        left: Those that would run.
        lines: Finished cells of earlier starts.
    """
    rates, beside = _rates([line for line in lines if line["status"] == "done"])
    waiting = [cell.arm.name for cell in left]
    found: list[Outlook] = []
    for arm in arms:
        count = waiting.count(arm.name)
        each = _seconds(arm, rates)
        seconds = 0.0 if count == 0 else None if each is None else count * (each + beside)
        total = sum(cell.arm.name == arm.name for cell in cells)
        found.append(Outlook(arm.name, total, count, arm.plan.nfe, arm.plan.exact, seconds))
    return found


def _rates(lines: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], float]:
    """Seconds a pass by variant, and what a cell takes besides its steps."""
    sums: dict[str, list[float]] = {}
    for line in lines:
        for name, entry in line["variants"].items():
            known = sums.setdefault(name, [0.0, 0.0])
            known[0] += entry["seconds"]
            known[1] += entry["passes"]
    beside = [line["wall"] - line["seconds"] for line in lines]
    rates = {name: seconds / passes for name, (seconds, passes) in sums.items() if passes}
    return rates, sum(beside) / len(beside) if beside else 0.0


def _seconds(arm: Arm, rates: Mapping[str, float]) -> float | None:
    phases = {phase.name: phase for phase in arm.plan.phases}
    seconds = 0.0
    for row in arm.plan.table():
        rate = rates.get(label(arm.plan, phases[row.phase]))
        if rate is None:
            return None
        seconds += row.passes * rate
    return seconds
