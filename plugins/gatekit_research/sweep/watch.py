"""What is put down along a run: predictions, and how far each boundary jumps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit

if TYPE_CHECKING:
    from torch import Tensor

Trace = list[tuple[float, "Tensor"]]


class Watch:
    """An observer of one run.

    Args:
        trace: Whether every prediction is kept.

    Attributes:
        trace: Pairs (sigma, D), without the batch axis.
        rho: Of each boundary: where, rho as ``auto`` sees it, and what the history policy noted.
    """

    def __init__(self, trace: bool) -> None:
        self._keeps = trace
        self.trace: Trace = []
        self.rho: list[dict[str, Any]] = []
        self._past: list[gatekit.Evaluation] = []
        self._phase: str | None = None

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """After a step: ``denoised`` is the prediction at its start."""
        if record.sigma_next > record.sigma:
            self._past = []
            return
        if self._keeps:
            self.trace.append((record.sigma, denoised[0].detach().float().cpu()))
        if self._phase not in (None, record.phase):
            self.rho.append(self._boundary(record, denoised))
            self._past = []
        self._phase = record.phase
        own = gatekit.Evaluation(record.sigma, denoised, denoised, record.field)
        self._past = [own, *self._past[:1]]

    def _boundary(self, record: gatekit.Record, denoised: Tensor) -> dict[str, Any]:
        found: dict[str, Any] = {"phase": record.phase, "sigma": record.sigma, "note": record.note}
        if len(self._past) == 2:
            state = gatekit.State(denoised, record.sigma, past=tuple(self._past))
            moved, jump = (float(v.sum()) ** 0.5 for v in gatekit.Auto.squares(state, denoised))
            found["rho"] = jump / moved if moved > 0.0 else None
        return found


def save_trace(path: Path, trace: Trace) -> None:
    """Write predictions to a safetensors file, whole or not at all."""
    from safetensors.torch import save

    tensors = {f"{i:05d}": d.contiguous() for i, (_, d) in enumerate(trace)}
    sigmas = json.dumps([s for s, _ in trace])
    gatekit.write_atomic(path, save(tensors, metadata={"sigmas": sigmas}))


def load_trace(path: Path) -> Trace:
    """What ``save_trace`` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        sigmas = json.loads(file.metadata()["sigmas"])
        return [(s, file.get_tensor(f"{i:05d}")) for i, s in enumerate(sigmas)]
