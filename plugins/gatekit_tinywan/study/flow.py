"""The converged flow of a base's own models: schedule, accuracy by halving, kept on disk.

A third-order method on a fine grid that hits every switch, where it starts afresh: the field jumps
there. The grid is even in theta but for the end, where v changes within sigmas of 0.005 (the
model sees them as times 0 to 5), so that steps fall geometrically to 0.0005. The reference's own
error is what half of the steps change; of a method whose order is at least 2 there, the finer
run has a third of that or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gatekit_basics.curvature import theta
from gatekit_basics.flow_grids import ThetaUniform
from gatekit_basics.grids import Karras, KarrasParams
from gatekit_tinywan.study.cell import PHASES

BOUNDARIES = {"fp16": (0.875,), "gate": (0.96, 0.875)}
FINE = 400  # steps
LEAST_STEPS = 14  # half of them still give every stretch a step
HIGH, TAIL = 0.2, 0.1  # shares of the steps above the last boundary, and below TAIL_FROM
TAIL_FROM, LEAST = 0.02, 5e-4
SAMPLER = {"use": "dpmpp_3m", "coordinate": "theta"}


def fine_grids(boundaries: Sequence[float], steps: int) -> list[list[float]]:
    """A grid for each phase, ``steps`` steps in all; each begins where the one before ends."""
    bounds = (1.0, *boundaries)
    whole = theta(bounds[-1])
    counts = [
        max(2, round(HIGH * steps * (theta(b) - theta(a)) / whole)) for a, b in pairwise(bounds)
    ]
    tail = max(2, round(TAIL * steps))
    even = ThetaUniform()
    found = [
        list(even.stretch(*ends, count))
        for ends, count in zip(pairwise(bounds), counts, strict=True)
    ]
    low = even.stretch(bounds[-1], TAIL_FROM, steps - sum(counts) - tail)
    end = Karras(KarrasParams(rho=3.0, sigma_min=LEAST, sigma_max=TAIL_FROM))
    return [*found, [*low, *end.stretch(TAIL_FROM, 0.0, tail)[1:]]]


def changes(flow: str, steps: int) -> dict[str, Any]:
    """Changes of the base ``flow`` that make it the reference."""
    phases = PHASES[flow]
    found: dict[str, Any] = {"sigmas.steps": None}
    # Grids of the phases' own: on one grid, a step from the boundary itself is the phase above's.
    for phase, values in zip(phases, fine_grids(BOUNDARIES[flow], steps), strict=True):
        found[f"phases.{phase}.sampler"] = SAMPLER
        found[f"phases.{phase}.steps"] = len(values) - 1
        # A phase that ends above 0 lists its inner sigmas; its ends are the boundaries.
        listed = values if values[-1] == 0.0 else [*values, 0.0]
        found[f"phases.{phase}.sigmas"] = {"use": "explicit", "values": listed}
    return found | {f"phases.{phase}.history": "reset" for phase in phases[1:]}
