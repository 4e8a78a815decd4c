"""One variant on stored states: how far its guided velocity is from the reference's."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_research.profile.candidates import Candidate
from gatekit_research.profile.recording import States

if TYPE_CHECKING:
    from torch import Tensor

Row = dict[str, float]


def errors(x: Tensor, sigma: float, reference: Tensor, velocity: Tensor, known: Any) -> Row:
    """Errors of a velocity v_q at one state, in float64.

    ``relative`` = ||v_q - v||/||v||; ``cosine`` of the two; ``x0`` = ||D_q - D||/||D|| with
    D = x - sigma v; ``rms`` = root mean square of v_q - v over the latent. What is known of x0
    (``known``) is put into both predictions first, as a run does.

    Args:
        x: State ``[1, C, T, H, W]``.
        sigma: Its noise level.
        reference: v, same shape.
        velocity: v_q, same shape.
        known: ``Conditioning.with_known``.
    """
    d, d_q = (known(x - sigma * v).double() for v in (reference, velocity))
    v, v_q = (x.double() - d) / sigma, (x.double() - d_q) / sigma
    difference, norm = v_q - v, v.norm()
    return {
        "relative": float(difference.norm() / norm),
        "cosine": float((v * v_q).sum() / (norm * v_q.norm())),
        "x0": float((d_q - d).norm() / d.norm()),
        "rms": float(difference.square().mean().sqrt()),
    }


class Visit:
    """One candidate in memory.

    A guidance with a memory begins it anew at each phase and then sees the states in order, as in
    a run whose samplers evaluate once a step.

    Args:
        candidate: Who.
    """

    def __init__(self, candidate: Candidate) -> None:
        self.candidate, self.device = candidate, candidate.plan.device

    def __enter__(self) -> Visit:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        self.candidate.variant.unload()

    def peak_bytes(self) -> int | None:
        """Most memory taken since this visit began, where the device tells."""
        if not self.device.startswith("cuda"):
            return None
        import torch

        return int(torch.cuda.max_memory_allocated(self.device))

    def measure(
        self,
        states: States,
        conditionings: Mapping[str, gatekit.Conditioning],
        evaluated: Callable[[], None] = lambda: None,
    ) -> list[Row]:
        """Rows of errors and seconds, at the states that the variant's expert serves.

        Args:
            states: Of one run.
            conditionings: Of its prompt, as the family's ``encode`` gave them.
            evaluated: Told after each.

        Raises:
            NumericsError: A prediction that is not finite.
        """
        import torch

        own = {phase.name: phase for phase in self.candidate.phases}
        rows: list[Row] = []
        memory: Mapping[str, Any] = {}
        before = None
        with torch.no_grad():
            for i, (sigma, name) in enumerate(zip(states.sigmas, states.phases, strict=True)):
                if name not in own:
                    continue
                phase = own[name]
                memory, before = (memory if before == name else {}), name
                x = states.x[i : i + 1].to(self.device)
                reference = states.velocity[i : i + 1].to(self.device)
                self._ready(phase, x, sigma, conditionings)
                began = self._clock()
                velocity, memory = self._guided(phase, x, sigma, conditionings, memory)
                seconds = self._clock() - began
                if not bool(velocity.isfinite().all()):
                    raise gatekit.NumericsError(
                        "predicted NaN or infinity",
                        where=f"variant {self.candidate.key}, sigma {sigma:.4g}",
                        remedy="give the phase another compute precision, or leave it out",
                    )
                known = conditionings[phase.guidance.needs[0]].with_known
                row = errors(x, sigma, reference, velocity, known)
                rows.append({"step": i, "sigma": sigma, **row, "seconds": seconds})
                evaluated()
        return rows

    def _ready(self, phase: Any, x: Tensor, sigma: float, conditionings: Any) -> None:
        """Loaded as the phase has it; the first evaluation, which is slower, is not timed."""
        variant = self.candidate.variant
        variant.adjust(phase.params)
        variant.configure(phase.execution)
        if variant.loaded != (self.device, phase.compute):
            variant.load(self.device, phase.compute)
            self._guided(phase, x, sigma, conditionings, {})

    def _guided(
        self, phase: Any, x: Tensor, sigma: float, conditionings: Any, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        variant = self.candidate.variant

        def predict(x: Tensor, sigma: float, names: Sequence[str]) -> Sequence[Tensor]:
            return [variant.velocity(x, sigma, conditionings[name]) for name in names]

        return phase.guidance.velocity(predict, x, sigma, memory)

    def _clock(self) -> float:
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize(self.device)
        return time.perf_counter()
