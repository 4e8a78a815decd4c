"""``restart`` and ``settle`` beside what the same evaluations do otherwise.

``settle`` hands over from Q2_K to Q5_K_S at a step of its own choice, on one grid. Every
possible step is run for all samples and the measure recorded, so that ``settle`` at ANY
threshold, deciding for each sample alone, and its controls of equal cost (one fixed step for
all) are read from the same runs. ``restart`` takes steps twice; its control is the plain grid
with as many evaluations, ``unipc`` here.
"""

from __future__ import annotations

from gatekit_tinywan.study.cell import Cell, at_budgets, samplers

WAN = {"use": "unipc", "order": 2, "weights": "bh2"}
RISES = ((0.1, 0.4), (0.3, 0.6), (0.5, 0.8))  # low, high
# evaluations -> steps that the high-noise expert has on the grid with shift 5
HIGH_STEPS = {12: 6, 20: 9}


def cells() -> list[Cell]:
    """Rises of the last phase on fp16 weights; every hand-over on the gate."""
    found = at_budgets("unipc", samplers("fp16", **WAN), (20, 40))
    for low, high in RISES:
        strategy = {"use": "restart", "low": low, "high": high, "times": 1}
        changes = {**samplers("fp16", **WAN), "phases.low.strategy": strategy}
        found += at_budgets(f"restart {low:g} to {high:g}", changes, (20, 40))
    for budget, high in HIGH_STEPS.items():
        for cut in range(2, high):
            changes = {**samplers("gate", **WAN), "phases.commit.until": {"step": cut}}
            watch = ("settle",) if cut == high - 1 else ()
            found.append(
                Cell(f"hand over after {cut}", budget, "gate", changes, ("fp16",), watch=watch)
            )
    return found
