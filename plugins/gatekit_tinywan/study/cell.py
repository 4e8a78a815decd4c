"""A cell: one way to sample at one number of evaluations, as data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

BASES = Path(__file__).parent / "bases"
PHASES: Mapping[str, tuple[str, ...]] = {
    "fp16": ("high", "low"),
    "three": ("commit", "structure", "polish"),
    "gate": ("commit", "structure", "polish"),
}
# Sigmas where the field of a base changes: the reference hits them. ``three`` is ``fp16``'s field.
FLOWS: Mapping[str, str] = {"fp16": "fp16", "three": "fp16", "gate": "gate"}
BUDGETS: tuple[int, ...] = (8, 12, 20, 40)
MEASURED = "measured"  # stands for a profile, or sigmas, made from the base's own model


Profile = Sequence[Sequence[float]]  # pairs (sigma, density)


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        row: Name of its line: sampler, grid, policy.
        evaluations: Most evaluations of the denoiser (guidance's two passes are one); the cell
            takes the largest number of steps that stays within them.
        base: Schedule in ``bases`` that it changes.
        changes: Keys of the schedule and their values, as for ``load_schedule``. A curvature
            grid's ``profile: measured`` is measured on the base's own model, an explicit grid's
            ``values: measured`` are those chosen from grids that are run on it.
        flows: The converged flows that its end is compared with: ``fp16``, ``gate``.
        peer: Name of a sampler of skrample that samples instead.
        watch: What else is recorded: ``rho`` at boundaries, ``settle`` along the first phase.
    """

    row: str
    evaluations: int
    base: str = "fp16"
    changes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    flows: tuple[str, ...] = ("fp16",)
    peer: str | None = None
    watch: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Row and evaluations, for people."""
        return f"{self.row} @ {self.evaluations}"

    @property
    def identity(self) -> str:
        """What it does, whatever its row is called: cells of two sets may be one."""
        return digest({key: value for key, value in asdict(self).items() if key != "row"})

    @property
    def measured(self) -> bool:
        """Whether it needs a measurement of the base's own model."""
        return any(MEASURED in _values(value) for value in self.changes.values())

    @property
    def searched(self) -> bool:
        """Whether its grid is chosen from those that are run on the base's own model."""
        return any(
            isinstance(value, Mapping) and value.get("values") == MEASURED  # pyright: ignore
            for value in self.changes.values()
        )

    def with_measured(self, profile: Profile, fitted: Callable[[int], Sequence[float]]) -> Cell:
        """With the measured profile, and sigmas chosen for as many steps as evaluations."""
        made = {"profile": lambda: profile, "values": lambda: fitted(self.evaluations)}
        changes = {
            key: {k: made[k]() if v == MEASURED else v for k, v in value.items()}
            if MEASURED in _values(value)
            else value
            for key, value in self.changes.items()
        }
        return replace(self, changes=changes)


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, Mapping) else []  # pyright: ignore


def samplers(base: str, use: str, **params: Any) -> dict[str, Any]:
    """One sampler in every phase."""
    return {f"phases.{phase}.sampler": {"use": use, **params} for phase in PHASES[base]}


def histories(base: str, *policies: str) -> dict[str, Any]:
    """The policies by which the second phase, the third, ... are entered; one is for all."""
    entered = PHASES[base][1:]
    given = policies * len(entered) if len(policies) == 1 else policies
    return {f"phases.{p}.history": policy for p, policy in zip(entered, given, strict=True)}


def shares(base: str, *parts: float) -> dict[str, Any]:
    """Steps shared in these proportions; every boundary becomes a point of the grid."""
    return {f"phases.{p}.share": part for p, part in zip(PHASES[base], parts, strict=True)}


def grids(base: str, *uses: Mapping[str, Any]) -> dict[str, Any]:
    """A grid for each phase's own stretch."""
    return {f"phases.{p}.sigmas": dict(use) for p, use in zip(PHASES[base], uses, strict=True)}


def at_budgets(
    row: str, changes: Mapping[str, Any], budgets: Sequence[int] = BUDGETS, **options: Any
) -> list[Cell]:
    """The cells of one row."""
    return [Cell(row, n, changes=changes, **options) for n in budgets]
