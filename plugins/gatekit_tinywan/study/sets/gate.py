"""The same rows with Q2_K, Q5_K_S and fp16 in the three phases."""

from __future__ import annotations

from gatekit_tinywan.study.cell import Cell, at_budgets, samplers
from gatekit_tinywan.study.sets.table import USUAL, of_phases

FLOWS = ("fp16", "gate")  # what it is for, and what its method alone has to answer for


def cells() -> list[Cell]:
    """Every row of ``table`` but skrample's."""
    usual = [
        cell
        for row, use, params in USUAL
        for cell in at_budgets(row, samplers("gate", use, **params), base="gate", flows=FLOWS)
    ]
    return [*usual, *of_phases("gate", FLOWS)]
