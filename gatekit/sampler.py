"""Sampler: one method of taking a step, and all it may see and return.

A step covers an interval (sigma, sigma_next], never an index; nothing is mutated. History,
noise and the interval to 0 belong to the runner.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, overload

from gatekit.params import SamplerParams

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.linear import Linear
    from gatekit.path import Path
    from gatekit.state import Evaluation


class Engine(Protocol):
    """What the runner lends to a context."""

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma), metered."""
        ...

    def noise(self, like: Tensor, purpose: str) -> Tensor:
        """Noise of this step."""
        ...

    def brownian(self, like: Tensor, start: float, to: float) -> Tensor:
        """Increment of the run's Brownian path."""
        ...


@dataclass(frozen=True)
class StepResult:
    """What a step returns.

    Attributes:
        x: State at ``sigma_next``, ``[B, ...]``, dtype of ``c.x``.
        denoised: D at the step's start, for observers.
        start: State the step left from, after correction; None means ``c.x``. What a corrector
            of the next step needs.
        ahead: D at (x, sigma_next) where the method has it; saves the next evaluation.
        memory: The sampler's own state; dropped on reset, renoise and change of sampler.
    """

    x: Tensor
    denoised: Tensor
    start: Tensor | None = None
    ahead: Tensor | None = None
    memory: Mapping[str, Tensor | float] = field(default_factory=dict[str, "Tensor | float"])


@dataclass(frozen=True)
class StepContext:
    """What a step sees.

    Attributes:
        x: State ``[B, ...]`` at ``sigma``, float32 or float64.
        sigma: Noise level, after shift.
        sigma_next: Where the step goes; never 0 in ``step``.
        past: Up to ``sampler.history`` past evaluations, newest first, sigmas above ``sigma``.
        memory: What the last step's result remembered.
        path: Noise path.
        steps_left: Grid intervals left down to sigma 0, this one and the last included: at least 2
            in ``step`` (a run that ends above 0 counts as one interval short of it).
    """

    x: Tensor
    sigma: float
    sigma_next: float
    past: tuple[Evaluation, ...]
    memory: Mapping[str, Tensor | float]
    path: Path
    steps_left: int
    engine: Engine = field(repr=False)

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma); at (c.x, c.sigma) it is known already and costs nothing."""
        return self.engine.denoise(x, sigma)

    @overload
    def velocity(self, x: Tensor, denoised: Tensor, sigma: float | None = None) -> Tensor: ...
    @overload
    def velocity(
        self, x: Linear, denoised: Tensor | Linear, sigma: float | None = None
    ) -> Linear: ...
    def velocity(
        self, x: Tensor | Linear, denoised: Any, sigma: float | None = None
    ) -> Tensor | Linear:
        """dx/dsigma = (x - D)/sigma, at ``c.sigma`` if None."""
        return self.path.velocity(x, denoised, self.sigma if sigma is None else sigma)

    def lam(self, sigma: float) -> float:
        """log(alpha/sigma); -inf and inf at the ends of the path."""
        return self.path.lam(sigma)

    def alpha(self, sigma: float) -> float:
        """Signal level."""
        return self.path.alpha(sigma)

    @overload
    def transfer(
        self, x: Tensor, denoised: Tensor, to: float, start: float | None = None
    ) -> Tensor: ...
    @overload
    def transfer(
        self, x: Linear, denoised: Tensor | Linear, to: float, start: float | None = None
    ) -> Linear: ...
    @overload
    def transfer(
        self, x: Tensor, denoised: Linear, to: float, start: float | None = None
    ) -> Linear: ...
    def transfer(
        self, x: Tensor | Linear, denoised: Tensor | Linear, to: float, start: float | None = None
    ) -> Tensor | Linear:
        """Move x from ``start`` (``c.sigma`` if None) to ``to`` along a constant D."""
        return self.path.transfer(x, denoised, self.sigma if start is None else start, to)

    def sigma_down(self, eta: float, rule: str = "lift") -> float:
        """Deterministic end of a stochastic step; ``renoise`` from there to ``sigma_next``."""
        return self.path.sigma_down(self.sigma, self.sigma_next, eta, rule)

    @overload
    def renoise(
        self,
        x: Tensor,
        from_sigma: float,
        to: float | None = None,
        noise: Tensor | None = None,
    ) -> Tensor: ...
    @overload
    def renoise(
        self,
        x: Linear,
        from_sigma: float,
        to: float | None = None,
        noise: Tensor | Linear | None = None,
    ) -> Linear: ...
    def renoise(
        self,
        x: Tensor | Linear,
        from_sigma: float,
        to: float | None = None,
        noise: Any = None,
    ) -> Tensor | Linear:
        """Lift x from ``from_sigma`` to ``to`` (``sigma_next``) with ``noise`` (``c.noise()``)."""
        target = self.sigma_next if to is None else to
        if target == from_sigma:
            return x
        fresh = self.noise() if noise is None else noise
        return self.path.renoise(x, from_sigma, target, fresh)

    def noise(self, purpose: str = "step") -> Tensor:
        """Standard normal noise like x; the same for the same step and purpose."""
        return self.engine.noise(self.x, purpose)

    def brownian(self, start: float | None = None, to: float | None = None) -> Tensor:
        """Normalised increment of the run's Brownian path over (start, to], like x."""
        return self.engine.brownian(
            self.x,
            self.sigma if start is None else start,
            self.sigma_next if to is None else to,
        )


@dataclass(frozen=True)
class StretchContext(StepContext):
    """What ``integrate`` sees: a whole phase, from where the state stands.

    Attributes:
        sigmas: This phase's sigmas, from ``c.sigma`` down.
        run_sigmas: The whole run's.
    """

    sigmas: tuple[float, ...] = ()
    run_sigmas: tuple[float, ...] = ()


class Sampler(ABC):
    """A sampling method. Instances are stateless: what a step must remember it returns.

    Class attributes:
        name: What schedules say in ``phases[].sampler.use``.
        order: Order of convergence, checked by ``gatekit.testing``.
        history: Past evaluations it wants in ``c.past``.
        stochastic: Whether it draws noise.
        adaptive: Whether it chooses its own steps (then it has ``integrate``).
        nfe_per_step: Evaluations a step, the last interval apart, which takes one.
        resumable: Whether a run goes on from any of its steps, bit for bit. A sampler with
            ``integrate`` that keeps more than its results tell says False; an interrupted run then
            goes on at the start of the phase.
        Params: Its parameters.
        integrate: For samplers that own their loop, a method ``(c: StretchContext)`` that
            yields (sigma, StepResult) for each accepted step, down to ``c.sigmas[-1]``, or to a
            small positive sigma of its choice where that is 0. The phase's strategy is then not
            asked. None for all others.
    """

    name: ClassVar[str]
    order: int = 1
    history: int = 0
    stochastic: bool = False
    adaptive: bool = False
    nfe_per_step: int = 1
    resumable: bool = True
    Params: ClassVar[type[SamplerParams]] = SamplerParams
    integrate: Any = None

    def __init__(self, params: SamplerParams | None = None) -> None:
        self.params: Any = params if params is not None else self.Params()

    @property
    def identity(self) -> str:
        """Name and parameters: two samplers of one identity share ``memory``."""
        return f"{self.name} {self.params.model_dump_json()}"

    @abstractmethod
    def step(self, c: StepContext) -> StepResult:
        """Go from (c.x, c.sigma) to c.sigma_next > 0."""

    def correct(self, c: StepContext, denoised: Tensor) -> Tensor:
        """The state at ``c.sigma`` corrected with D(c.x, c.sigma); used by history ``close``."""
        return c.x

    def finish(self, c: StepContext, denoised: Tensor) -> Tensor:
        """The last interval, from ``c.sigma`` to 0."""
        return denoised
