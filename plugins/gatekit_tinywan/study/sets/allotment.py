"""How the steps are shared between phases: by the run's grid, by the named rules, by shares."""

from __future__ import annotations

from gatekit_tinywan.study.cell import Cell, at_budgets, samplers, shares

RULES = ("grid", "theta", "lam")
SHARES = ((25, 35, 40), (40, 35, 25), (33, 33, 33), (15, 25, 60), (10, 15, 75))


def cells() -> list[Cell]:
    """The three on the grid with shift 5, and Wan's ``unipc`` over two phases."""
    found = at_budgets("unipc", samplers("fp16", "unipc", order=2, weights="bh2"))
    wan = samplers("fp16", "unipc", order=2, weights="bh2")
    found += at_budgets("the three, one grid", {}, base="three")
    for rule in RULES:
        found += at_budgets(f"unipc, allot {rule}", {**wan, "sigmas.allot": rule})
        found += at_budgets(f"the three, allot {rule}", {"sigmas.allot": rule}, base="three")
    for parts in SHARES:
        row = f"the three, {'/'.join(map(str, parts))}"
        found += at_budgets(row, shares("three", *parts), base="three")
    return found
