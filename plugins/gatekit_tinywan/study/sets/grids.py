"""Where the steps lie: every grid over the whole run, and by phase, under two fixed samplers."""

from __future__ import annotations

from typing import Any

from gatekit_tinywan.study.cell import MEASURED, Cell, at_budgets, grids, samplers, shares

WHOLE: dict[str, dict[str, Any]] = {
    **{f"shift {s:g}": {"use": "shifted_linear", "shift": s} for s in (3.0, 5.0, 8.0, 12.0)},
    "karras 0.01": {"use": "karras", "sigma_min": 0.01},
    "exponential 0.02": {"use": "exponential", "sigma_min": 0.02},
    "beta": {"use": "beta"},
    "y": {"use": "y_uniform"},
    "lam": {"use": "lam_uniform"},
    "theta": {"use": "theta_uniform"},
    "tangent": {"use": "tangent"},
    **{
        f"curvature {s:g}": {"use": "curvature", "sigma_min": s, "profile": MEASURED}
        for s in (0.02, 0.05, 0.1)
    },
}
Y, LAM, THETA = ({"use": f"{c}_uniform"} for c in ("y", "lam", "theta"))
SHIFT = {"use": "shifted_linear", "shift": 5.0}
KARRAS = {"use": "karras", "sigma_min": 0.02}
BY_PHASE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "y/lam/karras": (Y, LAM, KARRAS),
    "shift/shift/karras": (SHIFT, SHIFT, KARRAS),
    "shift/lam/karras": (SHIFT, LAM, KARRAS),
    "shift/shift/theta": (SHIFT, SHIFT, THETA),
    "theta/theta/lam": (THETA, THETA, LAM),
}
SHARES = ((25, 35, 40), (40, 35, 25), (15, 25, 60))
FIXED: dict[str, dict[str, Any]] = {
    "polish": {"use": "polish"},
    "dpmpp_2m": {"use": "dpmpp_2m"},
}


def cells() -> list[Cell]:
    """Grids of the whole run on two phases; grids by phase on three, at three allotments."""
    found = at_budgets("unipc", samplers("fp16", "unipc", order=2, weights="bh2"))
    for name, sampler in FIXED.items():
        for grid, use in WHOLE.items():
            changes = {**samplers("fp16", **sampler), "sigmas": use}
            found += at_budgets(f"{name}, {grid}", changes)
        for grid, uses in BY_PHASE.items():
            for parts in SHARES:
                row = f"{name}, {grid} {'/'.join(map(str, parts))}"
                changes = {
                    **samplers("three", **sampler),
                    **shares("three", *parts),
                    **grids("three", *uses),
                }
                found += at_budgets(row, changes, base="three")
    return found
