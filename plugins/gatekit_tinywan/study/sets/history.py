"""What the history is worth at a switch: ``carry``, ``reset``, ``close``; ``auto`` follows.

``auto`` carries up to a threshold of rho, else it resets. Every sample is run both ways and its
rho recorded, so that ``auto`` at ANY threshold, deciding for each sample alone, is read from the
same runs. ``close`` takes one evaluation more a switch, and so fewer steps.
"""

from __future__ import annotations

from typing import Any

from gatekit_tinywan.study.cell import Cell, at_budgets, histories, samplers

METHODS: dict[str, dict[str, Any]] = {
    "unipc": {"use": "unipc", "order": 2, "weights": "bh2"},
    "unipc theta": {"use": "unipc", "coordinate": "theta"},
    "dpmpp_2m": {"use": "dpmpp_2m"},
    "dpmpp_3m": {"use": "dpmpp_3m"},
}
GATE = ("fp16", "gate")


def cells() -> list[Cell]:
    """One switch on fp16 weights; two on the gate, where carry and reset are combined."""
    found: list[Cell] = []
    for name, sampler in METHODS.items():
        for policy in ("carry", "reset", "close"):
            watch = () if policy == "close" else ("rho",)
            changes = {**samplers("fp16", **sampler), **histories("fp16", policy)}
            found += at_budgets(f"{name}, {policy}", changes, watch=watch)
    for name in ("unipc", "unipc theta"):
        for first in ("carry", "reset"):
            for second in ("carry", "reset"):
                changes = {
                    **samplers("gate", **METHODS[name]),
                    **histories("gate", first, second),
                }
                row = f"gate, {name}, {first}+{second}"
                found += at_budgets(row, changes, base="gate", flows=GATE, watch=("rho",))
        changes = {**samplers("gate", **METHODS[name]), **histories("gate", "close")}
        found += at_budgets(f"gate, {name}, close", changes, base="gate", flows=GATE)
    return found
