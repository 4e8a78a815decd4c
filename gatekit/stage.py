"""Stage: one phase made ready to run, and the engine that meters its evaluations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatekit.errors import InputError, NumericsError
from gatekit.history import HistoryPolicy
from gatekit.phase import Phase
from gatekit.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.noise import NoiseSource
    from gatekit.path import Path
    from gatekit.state import State

Memory = Mapping[str, Any]
Evaluate = Callable[["Tensor", float, Memory], tuple["Tensor", Memory]]
Denoiser = Callable[["Tensor", float], "Tensor"]


@dataclass(frozen=True)
class Stage:
    """One phase: what predicts, how it steps, where.

    Attributes:
        name: The phase's name, in records and errors.
        field: Stable name of what predicts. Where two stages in a row share it, the history
            goes on untouched.
        sampler: The method.
        strategy: Which interval comes next.
        history: The policy by which this stage is ENTERED.
        open: Brings the model in and returns (x, sigma, guidance memory) -> (D, memory). Called
            when the first evaluation is needed: a resumed run does not load what it is past.
            D must be a fresh tensor: history keeps it.
        close: Lets the model go; called after ``HistoryPolicy.leave``, and on any error, and
            only if ``open`` was.
        passes: Running count of model passes, where an evaluation may take several.
        skipped: Running count of those that a step cache shortened, where there is one.
        model: Key of what predicts, for errors; "" where it has none.
    """

    name: str
    field: str
    sampler: Sampler
    strategy: Phase
    history: HistoryPolicy
    open: Callable[[], Evaluate]
    close: Callable[[], None] | None = None
    passes: Callable[[], int] | None = None
    skipped: Callable[[], int] | None = None
    model: str = ""

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The strategy's sigmas."""
        return self.strategy.sigmas


def plain(denoise: Denoiser) -> Callable[[], Evaluate]:
    """``Stage.open`` for a plain function D(x, sigma)."""

    def evaluate(x: Tensor, sigma: float, memory: Memory) -> tuple[Tensor, Memory]:
        return denoise(x, sigma), memory

    return lambda: evaluate


def extremes(x: Tensor) -> Tensor:
    """Least and greatest element, ``[2]``, on x's device: NaN in x makes both NaN. One pass."""
    import torch

    return torch.stack(torch.aminmax(x)) if x.numel() else torch.zeros(2, device=x.device)


def is_finite(extremes: Tensor) -> bool:
    """Whether all is finite that has these extremes; waits for their device."""
    return all(math.isfinite(float(end)) for end in extremes.cpu())


class Engine:
    """Evaluates, counts, checks and draws for one run: the mutable part, kept in one place."""

    def __init__(self, path: Path, noise: NoiseSource, state: State) -> None:
        self.path, self.source = path, noise
        self.step, self.visit = state.step, state.visit
        self.nfe = self.passes = self.skipped = 0
        self.drew = False
        self.memory: Memory = state.guidance_memory
        self.opened: Stage | None = None
        self.raised: BaseException | None = None  # by the model, when last asked or loaded
        self._evaluate: Evaluate | None = None
        self._known: tuple[Tensor, float, Tensor] | None = None
        self._pending: tuple[Any, Any, str] | None = None

    def ensure(self, stage: Stage) -> None:
        """Have this stage's model in."""
        if self.opened is not stage:
            self.release()
            self.opened = stage
            try:
                self._evaluate = stage.open()
            except BaseException as exc:
                self.raised = exc  # a history policy may be the one that asks: not its fault
                raise

    def release(self) -> None:
        """Let the model go, if one is in."""
        stage, self.opened, self._evaluate, self._known = self.opened, None, None, None
        if stage is not None and stage.close is not None:
            stage.close()

    def know(self, x: Tensor, sigma: float, denoised: Tensor | None) -> Tensor:
        """Evaluate at (x, sigma), or take ``denoised`` for it; asking again is free."""
        if denoised is None:
            denoised = self.denoise(x, sigma)
        self._known = (x, sigma, denoised)
        return denoised

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma), metered and checked."""
        if self._known is not None and x is self._known[0] and sigma == self._known[1]:
            return self._known[2]
        assert self._evaluate is not None and self.opened is not None
        count, short = self.opened.passes, self.opened.skipped
        before = count() if count is not None else 0
        shortened = short() if short is not None else 0
        try:
            denoised, self.memory = self._evaluate(x, sigma, self.memory)
        except BaseException as exc:
            self.raised = exc
            raise
        self.passes += count() - before if count is not None else 1
        self.skipped += short() - shortened if short is not None else 0
        self.nfe += 1
        shape: Any = getattr(denoised, "shape", type(denoised).__name__)
        if shape != x.shape:
            raise InputError(
                "a denoiser must return the shape it is given",
                where=f"phase {self.opened.name}",
                value=shape if isinstance(shape, str) else tuple(shape),
                remedy=f"return {tuple(x.shape)}",
            )
        denoised = denoised.to(x.dtype)
        by = f", variant {self.opened.model}" if self.opened.model else ""
        where = f"phase {self.opened.name}, step {self.step}, sigma {sigma:.6g}{by}"
        self._watch(denoised, where)
        return denoised

    def noise(self, like: Tensor, purpose: str) -> Tensor:
        """Noise of this step."""
        self.drew = True
        return self.source.like(like, step=self.step, purpose=purpose)

    def brownian(self, like: Tensor, start: float, to: float) -> Tensor:
        """Increment of this visit's Brownian path; its time is s on a flow, s/(1+s) on VE."""
        self.drew = True
        bounded = math.isfinite(self.path.sigma_max)
        a, b = (s if bounded else s / (1.0 + s) for s in (start, to))
        return self.source.brownian(like, a, b, visit=self.visit)

    def _watch(self, denoised: Tensor, where: str) -> None:
        """Look for NaN and infinity; on a GPU the answer is read later, without waiting."""
        import torch

        self.check()
        found = extremes(denoised)
        if found.device.type != "cuda":
            self._pending = (found, None, where)
            self.check()
            return
        host = torch.empty(2, dtype=found.dtype, device="cpu", pin_memory=True)
        with torch.cuda.device(found.device):  # the event belongs to this device's stream
            host.copy_(found, non_blocking=True)
            event = torch.cuda.Event()
            event.record()  # pyright: ignore[reportUnknownMemberType]
        self._pending = (host, event, where)

    def check(self) -> None:
        """Raise NumericsError if the last prediction was not finite."""
        if self._pending is None:
            return
        found, event, where = self._pending
        self._pending = None
        if event is not None:
            event.synchronize()
        if not is_finite(found):
            raise NumericsError(
                "the model predicted NaN or infinity",
                where=where,
                remedy="try compute bf16 or fp32 in this phase, or check the weight file",
            )
