"""What exponential samplers with inner stages share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gatekit import Linear, Sampler, StepContext, StepResult, lazy, multistep_weights
from gatekit_samplers.multistep import power

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Stages:
    """One step of an exponential Runge-Kutta method on the (stochastic) flow.

    Every stage is a transfer with a mean of predictions, and noise. The noises of the stages are
    those of ONE solution of the SDE: each stage's is carried to the next and topped up.

    Attributes:
        c: The step's context.
        coordinate: Axis of nodes and interpolation. From where it is infinite (sigma 1 in
            ``lam`` and ``ve``) the step runs along ``u``.
        eta: Strength of the noise.
    """

    c: StepContext
    coordinate: str
    eta: float

    @property
    def axis(self) -> str:
        """The coordinate, or u."""
        finite = math.isfinite(self.c.path.coordinate(self.coordinate, self.c.sigma))
        return self.coordinate if finite else "u"

    def place(self, fraction: float) -> float:
        """The sigma at this fraction of the step."""
        c, path = self.c, self.c.path
        if fraction == 1.0:
            return c.sigma_next
        start, end = (path.coordinate(self.axis, s) for s in (c.sigma, c.sigma_next))
        at = start + fraction * (end - start)
        match self.axis:
            case "s":
                sigma = at
            case "u":
                sigma = math.exp(-at)
            case "lam":
                sigma = path.from_ve(math.exp(-at))
            case "theta":
                sigma = path.from_ve(1.0 / math.tan(at))
            case _:
                sigma = path.from_ve(at)
        return min(max(sigma, c.sigma_next), c.sigma)

    def moment(self, to: float) -> float:
        """Mean over (s, to] of (c - c(s))/(c(to) - c(s)): phi_2/phi_1."""
        c = self.c
        density = power(c.path, self.eta)
        return multistep_weights(c.path, self.axis, c.sigma, to, (c.sigma, to), density)[1]

    def share(self, to: float) -> float:
        """1 - (y/y_to)^(1 + eta): what D contributes up to ``to``, over alpha there."""
        return 1.0 - self._ratio(self.c.sigma, to) ** (1.0 + self.eta)

    def go(self, to: float, mean: Tensor | Linear, noise: Linear | None) -> Tensor:
        """The state at ``to``, with ``mean`` for D."""
        c = self.c
        down = c.path.sigma_down(c.sigma, to, self.eta, "sde")
        x = c.transfer(lazy(c.x), mean, down)
        return (x if noise is None else c.renoise(x, down, to, noise)).tensor()

    def noise(self, purpose: str) -> Linear | None:
        """Fresh noise, none if eta is 0."""
        return None if self.eta == 0.0 else lazy(self.c.noise(purpose))

    def carry(self, noise: Linear | None, at: float, to: float, purpose: str) -> Linear | None:
        """Unit noise over (s, to] whose part up to ``at`` is ``noise``; fresh from there."""
        if noise is None or at == to:
            return noise
        old = self._spread(self.c.sigma, at) * self._ratio(at, to) ** self.eta
        new, total = self._spread(at, to), self._spread(self.c.sigma, to)
        return (old * noise + new * lazy(self.c.noise(purpose))) / total

    def _ratio(self, start: float, to: float) -> float:
        """y/y_to < 1; 0 from sigma 1 on a flow."""
        return self.c.path.ve(to) / self.c.path.ve(start)

    def _spread(self, start: float, to: float) -> float:
        return math.sqrt(1.0 - self._ratio(start, to) ** (2.0 * self.eta))


class TwoStages(Sampler):
    """Predict to c_2, evaluate, and take the step with the line through both predictions."""

    order, nfe_per_step = 2, 2
    eta: float = 0.0

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.eta = getattr(self.params, "eta", 0.0)
        self.stochastic = self.eta > 0.0

    def weight(self, stages: Stages) -> float:
        """b_2/(b_1 + b_2): phi_2/(c_2 phi_1)."""
        return stages.moment(stages.c.sigma_next) / self.params.c2

    def step(self, c: StepContext) -> StepResult:
        """Two stages."""
        s = Stages(c, self.params.coordinate, self.eta)
        denoised, middle = c.denoise(c.x, c.sigma), s.place(self.params.c2)
        noise = s.noise("inner")
        second = c.denoise(s.go(middle, denoised, noise), middle)
        mean = denoised + self.weight(s) * (lazy(second) - denoised)
        noise = s.carry(noise, middle, c.sigma_next, "step")
        return StepResult(s.go(c.sigma_next, mean, noise), denoised)


class ThreeStages(Sampler):
    """Three stages of order 3, for any c_2 and c_3.

    With gamma = (3 c_3^2 - 2 c_3)/(c_2 (2 - 3 c_2)), phi_j,i = phi_j(-c_i h):
    a_32 = gamma c_2 phi_2,2 + (c_3^2/c_2) phi_2,3, b_2 = gamma b_3, b_3 = phi_2/(gamma c_2 + c_3).
    """

    order, nfe_per_step = 3, 3
    eta: float = 0.0

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.eta = getattr(self.params, "eta", 0.0)
        self.stochastic = self.eta > 0.0

    def step(self, c: StepContext) -> StepResult:
        """Three stages."""
        c2, c3 = self.params.c2, self.params.c3
        gamma = (3 * c3**2 - 2 * c3) / (c2 * (2 - 3 * c2))
        s = Stages(c, self.params.coordinate, self.eta)
        first, s2, s3 = c.denoise(c.x, c.sigma), s.place(c2), s.place(c3)

        noise = s.noise("inner")
        second = lazy(c.denoise(s.go(s2, first, noise), s2)) - first

        a32 = gamma * s.share(s2) / s.share(s3) * s.moment(s2) + c3 / c2 * s.moment(s3)
        noise = s.carry(noise, s2, s3, "inner2")
        third = lazy(c.denoise(s.go(s3, first + a32 * second, noise), s3)) - first

        b3 = s.moment(c.sigma_next) / (gamma * c2 + c3)
        noise = s.carry(noise, s3, c.sigma_next, "step")
        return StepResult(s.go(c.sigma_next, first + b3 * (gamma * second + third), noise), first)
