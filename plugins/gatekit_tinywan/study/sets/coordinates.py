"""Along which axis multistep samplers interpolate, at orders 2 and 3, with a terminal step."""

from __future__ import annotations

from typing import Any

from gatekit_tinywan.study.cell import Cell, at_budgets, samplers

COORDINATES = ("lam", "u", "s", "theta", "ve")
FAMILIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("2 points", "res_2m", {}),
    ("3 points", "res_3m", {}),
    ("unipc p 2", "unipc", {"order": 2, "weights": "exact"}),
    ("unipc p 3", "unipc", {"order": 3, "weights": "exact"}),
    ("unipc p 2, terminal step", "polish", {"order": 2, "weights": "exact", "terminal": 1.0}),
)


def cells() -> list[Cell]:
    """Five coordinates of five families; Wan's ``unipc`` to compare with."""
    wan = at_budgets("unipc", samplers("fp16", "unipc", order=2, weights="bh2"))
    return wan + [
        cell
        for label, use, params in FAMILIES
        for c in COORDINATES
        for cell in at_budgets(f"{label}, {c}", samplers("fp16", use, coordinate=c, **params))
    ]
