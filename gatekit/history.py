"""HistoryPolicy: what past evaluations are worth when the model changes.

A jump of the field enters a multistep sampler's divided difference once. Wan's own code
ignores it (``carry``); starting afresh (``reset``) loses the order for a step; ``close`` and
``auto`` look at the jump. The policy of the phase that is ENTERED decides.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gatekit.params import HistoryParams
from gatekit.state import Evaluation, State

if TYPE_CHECKING:
    from torch import Tensor

Denoise = Callable[["Tensor", float], "Tensor"]
Correct = Callable[[State, "Tensor"], "Tensor"]


class HistoryPolicy(ABC):
    """What happens to the history between two phases.

    Class attributes:
        name: What schedules say in ``phases[].history``.
        Params: Its parameters.
        evaluations: Evaluations it adds to a boundary where the field changes.
        history: Past evaluations it reads.
        acts_on_same_field: False: where both phases predict with one field it is ``carry``.
    """

    name: ClassVar[str]
    Params: ClassVar[type[HistoryParams]] = HistoryParams
    evaluations: int = 0
    history: int = 0
    acts_on_same_field: bool = False

    def __init__(self, params: HistoryParams | None = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    def leave(self, state: State, denoise: Denoise, correct: Correct) -> State:
        """While the leaving model is resident.

        Args:
            state: At the boundary.
            denoise: The leaving model's D(x, sigma).
            correct: (state, D) -> x as the leaving sampler corrects it.
        """
        return state

    @abstractmethod
    def enter(self, state: State, denoise: Denoise) -> State:
        """While the entering model is resident; ``denoise`` is its D(x, sigma)."""


class Carry(HistoryPolicy):
    """Keep everything, as if nothing had changed: what Wan's own code does."""

    name = "carry"

    def enter(self, state: State, denoise: Denoise) -> State:  # noqa: D102
        return replace(state, note="carry")


class Reset(HistoryPolicy):
    """Forget everything, wherever the boundary lies: what chained ComfyUI samplers do."""

    name = "reset"
    acts_on_same_field = True

    def enter(self, state: State, denoise: Denoise) -> State:  # noqa: D102
        return replace(state.forget(), note="reset")


class Close(HistoryPolicy):
    """Finish the old model's last step with the old model, then shift its history by the jump.

    On leaving, the old model is evaluated once more, at the boundary, and its sampler corrects
    x with that. On entering, every past D gets D_new - D_old added: the jump leaves the divided
    differences. One evaluation more. D_old is taken before the correction, D_new after it: they
    differ by the corrector's own order, which the differences do not see.
    """

    name = "close"
    evaluations = 1

    def leave(self, state: State, denoise: Denoise, correct: Correct) -> State:  # noqa: D102
        if not state.past:
            return state
        denoised = denoise(state.x, state.sigma)
        closing = Evaluation(state.sigma, state.x, denoised, state.past[0].field)
        return replace(state.displaced(correct(state, denoised)), closing=closing)

    def enter(self, state: State, denoise: Denoise) -> State:  # noqa: D102
        if state.closing is None:
            return replace(state.forget(), note="close: reset, nothing to close")
        denoised = denoise(state.x, state.sigma)
        jump = denoised - state.closing.denoised
        past = tuple(replace(p, denoised=p.denoised + jump) for p in state.past)
        return replace(state, past=past, ahead=denoised, closing=None, note="close")


class AutoParams(HistoryParams):
    """Parameters of ``auto``."""

    threshold: float = Field(16.0, gt=0, description="largest jump that is still carried")


class Auto(HistoryPolicy):
    """Carry if the new model continues the old one's history, else reset.

    rho = |D_new - D_pred| / |D_pred - D_prev|: D_pred is the old history extrapolated to the
    boundary (linearly in sigma), D_prev its newest evaluation. rho <= threshold carries. Decided
    once for the batch, from the first evaluation of the new model, which the step then reuses.
    Fewer than two past evaluations: reset. rho grows with the number of steps, as D_pred - D_prev
    shrinks and the jump does not: on the small model its median is a fifth of that number, and
    carrying errs no more than resetting up to 40 steps. So the default leaves resetting to jumps
    that are far larger than those of two experts of one model (docs/history.md).
    """

    name = "auto"
    Params = AutoParams
    history = 2

    def enter(self, state: State, denoise: Denoise) -> State:  # noqa: D102
        if len(state.past) < 2:
            return replace(state.forget(), note="auto: reset, short history")
        denoised = denoise(state.x, state.sigma)
        moved, jump = (v.sum() for v in self.squares(state, denoised))
        moved, jump = _on_cpu(moved.sqrt(), jump.sqrt())
        rho = jump / moved if moved > 0.0 else (0.0 if jump == 0.0 else float("inf"))
        if rho <= self.params.threshold:
            return replace(state, ahead=denoised, note=f"auto: carry, rho {rho:.3g}")
        return replace(state.forget(), ahead=denoised, note=f"auto: reset, rho {rho:.3g}")

    @staticmethod
    def squares(state: State, denoised: Tensor) -> tuple[Tensor, Tensor]:
        """|D_pred - D_prev|^2 and |D_new - D_pred|^2 of each sample ``[B]``: rho^2 is their ratio.

        Args:
            state: At the boundary, with two past evaluations or more.
            denoised: D_new, the new model's prediction there.
        """
        newest, older = state.past[:2]
        ratio = (state.sigma - newest.sigma) / (newest.sigma - older.sigma)
        predicted = newest.denoised + ratio * (newest.denoised - older.denoised)
        differences = (predicted - newest.denoised, denoised - predicted)
        moved, jump = (d.reshape(len(d), -1).square().sum(1) for d in differences)
        return moved, jump


def _on_cpu(*values: Tensor) -> list[float]:
    """Scalars of one device as numbers, with one wait for it."""
    import torch

    host = torch.stack(values).cpu()
    return [float(value) for value in host]
