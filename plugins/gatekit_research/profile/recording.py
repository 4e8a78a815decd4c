"""The reference's states: what the run stood at before each step, and its velocity there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gatekit

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class States:
    """Where a run stood before each of its steps.

    Attributes:
        sigmas: One a step, falling.
        phases: Name of the phase of each.
        x: ``[steps, C, T, H, W]``, float32, on the CPU.
        velocity: The reference's guided velocity there, likewise.
    """

    sigmas: tuple[float, ...]
    phases: tuple[str, ...]
    x: Tensor
    velocity: Tensor


class Recorder(gatekit.Guidance):
    """A guidance that keeps what it was asked, until the step has ended."""

    def __init__(self, inner: gatekit.Guidance) -> None:
        super().__init__(inner.params)
        # Where messages and plans look: as if it were the guidance itself.
        self.inner, self.name, self.needs = inner, inner.name, inner.needs  # pyright: ignore
        self.asked: list[tuple[float, Tensor, Tensor]] = []

    def passes_at(self, sigma: float) -> int:
        """As the guidance's own."""
        return self.inner.passes_at(sigma)

    def velocity(
        self, predict: gatekit.Predict, x: Tensor, sigma: float, memory: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """The guidance's own."""
        velocity, memory = self.inner.velocity(predict, x, sigma, memory)
        self.asked.append((sigma, x.detach().float().cpu(), velocity.detach().float().cpu()))
        return velocity, memory


class Watch:
    """An observer that picks, of what was asked during each step, what was asked at its start."""

    def __init__(self, recorders: Mapping[str, Recorder]) -> None:
        self.recorders = recorders
        self.found: list[tuple[float, str, Tensor, Tensor]] = []

    def __call__(self, state: gatekit.State, record: gatekit.Record, _: Tensor) -> None:
        """A step ended: the first evaluation at its start is the one the runner made."""
        recorder = self.recorders[record.phase]
        for sigma, x, velocity in recorder.asked:
            if sigma == record.sigma:
                self.found.append((sigma, record.phase, x, velocity))
                break
        else:
            raise gatekit.InputError(
                "the sampler evaluates elsewhere than at the starts of its steps",
                where=f"phase {record.phase}",
                value=record.sampler,
                remedy="profile with another sampler, such as unipc: --set",
            )
        # Where a method ends a step by evaluating at its end, the next step does not do so again.
        x = state.x.float().cpu()
        ahead = [e for e in recorder.asked if e[0] == state.sigma and bool((e[1] == x).all())]
        for each in self.recorders.values():
            each.asked.clear()
        recorder.asked += ahead[-1:]


def record(
    plan: gatekit.Plan,
    inputs: gatekit.Inputs,
    observers: Sequence[Any] = (),
    warm: gatekit.Warm | None = None,
) -> States:
    """Run ``plan`` and keep the states; raises what ``gatekit.run`` raises."""
    import torch

    recorders = {phase.name: Recorder(phase.guidance) for phase in plan.phases}
    phases = tuple(replace(p, guidance=recorders[p.name]) for p in plan.phases)
    watch = Watch(recorders)
    undecoded(replace(plan, phases=phases), inputs, [watch, *observers], warm)
    sigmas, names, x, velocity = zip(*watch.found, strict=True)
    return States(sigmas, names, torch.cat(x), torch.cat(velocity))


def undecoded(
    plan: gatekit.Plan,
    inputs: gatekit.Inputs,
    observers: Sequence[Any],
    warm: gatekit.Warm | None = None,
) -> None:
    """Run all steps for their observers' sake; the video, which nobody asked for, is not decoded.

    Raises:
        Cancelled: An observer stopped the run.
        GatekitError: What else ``gatekit.run`` raises.
    """
    steps, taken = len(plan.table()), 0

    def stop_at_the_end(*_: Any) -> None:
        nonlocal taken
        taken += 1
        if taken == steps:
            raise gatekit.Cancelled

    try:
        gatekit.run(plan, inputs, observers=[*observers, stop_at_the_end], warm=warm)
    except gatekit.Cancelled:
        if taken < steps:
            raise
