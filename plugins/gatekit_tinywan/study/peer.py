"""skrample's samplers on the same model, where skrample can be imported (Python 3.12 and newer)."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gatekit

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", float], "Tensor"]
# Name of a row -> its class, its options. "v" interpolates velocities instead of predictions.
PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("Euler", {}),
    "DPM 2": ("DPM", {"order": 2}),
    "DPM 3": ("DPM", {"order": 3}),
    "Adams 2": ("Adams", {"order": 2}),
    "Adams 3": ("Adams", {"order": 3}),
    "UniPC 2": ("UniPC", {"order": 2}),
    "UniPC 3": ("UniPC", {"order": 3}),
    "RK 2": ("RKUltra", {"order": 2}),
}


def missing() -> str | None:
    """Why skrample's rows are left out, or None."""
    try:
        importlib.import_module("skrample")
    except ImportError as error:
        remedy = "on Python 3.12 and newer: pip install skrample==0.7.0"
        return f"skrample's rows are left out: {error}; {remedy}"
    return None


def sample(
    name: str, budget: int, x: Tensor, shift: float, denoisers: Sequence[tuple[float, Denoise]]
) -> Tensor:
    """The end of skrample's sampler ``name`` on the grid with ``shift``, from noise ``x``.

    Args:
        name: A key of ``PEERS``.
        budget: Most evaluations.
        x: Noise ``[n, ...]``.
        shift: Of the flow's grid, as Wan's.
        denoisers: (lowest sigma, D) of each phase, descending: an evaluation at sigma goes to
            the first whose bound it reaches. For the start of a step this is Wan's rule; inner
            stages of a Runge-Kutta step go by their own sigma.

    Raises:
        InputError: skrample cannot be imported.
    """
    if said := missing():
        raise gatekit.InputError(said, remedy="use another set, or that Python")
    scheduling, functional, interface, models, structured = (
        importlib.import_module(f"skrample.{part}")
        for part in (
            "scheduling",
            "sampling.functional",
            "sampling.interface",
            "sampling.models",
            "sampling.structured",
        )
    )
    kind, options = PEERS[name]
    steps = budget
    if hasattr(structured, kind):
        sampler: Any = interface.StructuredFunctionalAdapter(getattr(structured, kind)(**options))
    else:
        sampler = getattr(functional, kind)(**options)
        steps = max(1, sampler.adjust_steps(budget))

    def predict(x: Tensor, timestep: float, sigma: float, alpha: float) -> Tensor:
        del timestep, alpha
        denoise = next(d for bound, d in denoisers if sigma >= bound - 1e-6)
        return denoise(x, float(sigma))

    schedule = scheduling.FlowShift(scheduling.Linear(), shift=shift)
    return sampler.sample_model(x, predict, models.DataModel(), schedule, steps)
