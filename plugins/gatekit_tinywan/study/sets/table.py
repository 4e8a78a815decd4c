"""The table of ``docs/samplers.md``: usual samplers, the three of the phases, and skrample's."""

from __future__ import annotations

from typing import Any

from gatekit_tinywan.study.cell import MEASURED, Cell, at_budgets, grids, samplers, shares
from gatekit_tinywan.study.peer import PEERS

USUAL: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("euler", "euler", {}),
    ("unipc", "unipc", {"order": 2, "weights": "bh2"}),  # Wan's own
    ("dpmpp_2m", "dpmpp_2m", {}),
    ("k_diffusion/dpmpp_2m", "k_diffusion/dpmpp_2m", {}),
    ("dpmpp_3m", "dpmpp_3m", {}),
    ("res_3m", "res_3m", {}),
    ("deis", "deis", {}),
)


def of_phases(base: str, flows: tuple[str, ...]) -> list[Cell]:
    """``commit``, ``structure``, ``polish``, on the run's grid and on the grids tried so far."""
    y = {"use": "y_uniform"}
    lam = {"use": "lam_uniform"}
    found: dict[str, dict[str, Any]] = {
        "the three": {},
        "the three, y/lam/karras 25/35/40": {
            **shares(base, 25, 35, 40),
            **grids(base, y, lam, {"use": "karras", "sigma_min": 0.01}),
        },
        "the three, y/lam/karras 40/35/25": {
            **shares(base, 40, 35, 25),
            **grids(base, y, lam, {"use": "karras", "sigma_min": 0.02}),
        },
        "the three, curvature": {
            "sigmas": {"use": "curvature", "profile": MEASURED, "sigma_min": 0.05}
        },
        "the three, fitted": {"sigmas": {"use": "explicit", "values": MEASURED}},
    }
    return [
        c for row, g in found.items() for c in at_budgets(row, g, base=base, flows=flows)
    ]  # fmt: skip


def cells() -> list[Cell]:
    """On fp16 weights; skrample's rows last."""
    usual = [c for row, use, p in USUAL for c in at_budgets(row, samplers("fp16", use, **p))]
    peers = [c for name in PEERS for c in at_budgets(f"skrample {name}", {}, peer=name)]
    return [*usual, *of_phases("three", ("fp16",)), *peers]
