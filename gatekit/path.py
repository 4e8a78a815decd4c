"""The noise path x_s = alpha(s) x0 + s n, and the two primitives that samplers are made of.

A denoiser predicts D, the clean x0. On every path here dx/ds = (x - D)/s, so deterministic
samplers are written once; only re-noising differs, and this module owns it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, overload

from gatekit.errors import InputError
from gatekit.linear import Linear, mix

if TYPE_CHECKING:
    from torch import Tensor

COORDINATES = ("lam", "u", "s", "theta", "ve")
RULES = ("lift", "sde", "linear")


class Path(ABC):
    """alpha(s) and what follows from it.

    Class attributes:
        name: What ``sample(path=...)`` and families say.
        sigma_max: Largest noise level the path has.
    """

    name: ClassVar[str]
    sigma_max: ClassVar[float]

    @abstractmethod
    def alpha(self, sigma: float) -> float:
        """Signal level at noise level ``sigma``."""

    @abstractmethod
    def from_ve(self, ve: float) -> float:
        """The sigma whose noise-to-signal ratio sigma/alpha is ``ve`` (infinity allowed)."""

    def ve(self, sigma: float) -> float:
        """Noise-to-signal ratio sigma/alpha: sigma of the same state, lifted to VE."""
        alpha = self.alpha(sigma)
        return math.inf if alpha == 0.0 else sigma / alpha

    def lam(self, sigma: float) -> float:
        """Half log-SNR, log(alpha/sigma). Never raises: -inf without signal, inf without noise."""
        alpha = self.alpha(sigma)
        if sigma == 0.0:
            return math.inf
        return -math.inf if alpha == 0.0 else math.log(alpha / sigma)

    def coordinate(self, name: str, sigma: float) -> float:
        """Where ``sigma`` lies on the axis that a multistep sampler interpolates along.

        Args:
            name: ``lam`` = log(alpha/s), ``u`` = -log s, ``s``, ``theta`` = atan2(alpha, s),
                ``ve`` = s/alpha.
            sigma: Noise level.

        Raises:
            InputError: For another name.
        """
        match name:
            case "lam":
                return self.lam(sigma)
            case "u":
                return math.inf if sigma == 0.0 else -math.log(sigma)
            case "s":
                return sigma
            case "theta":
                return math.atan2(self.alpha(sigma), sigma)
            case "ve":
                return self.ve(sigma)
            case _:
                raise InputError(
                    "unknown coordinate", value=name, remedy=f"use one of {', '.join(COORDINATES)}"
                )

    @overload
    def velocity(self, x: Tensor, denoised: Tensor, sigma: float) -> Tensor: ...
    @overload
    def velocity(self, x: Linear, denoised: Tensor | Linear, sigma: float) -> Linear: ...
    def velocity(self, x: Tensor | Linear, denoised: Any, sigma: float) -> Tensor | Linear:
        """dx/dsigma = (x - D)/sigma."""
        return (x - denoised) / sigma

    @overload
    def transfer(self, x: Tensor, denoised: Tensor, sigma: float, to: float) -> Tensor: ...
    @overload
    def transfer(self, x: Linear, denoised: Tensor | Linear, sigma: float, to: float) -> Linear: ...
    @overload
    def transfer(self, x: Tensor, denoised: Linear, sigma: float, to: float) -> Linear: ...
    def transfer(
        self, x: Tensor | Linear, denoised: Tensor | Linear, sigma: float, to: float
    ) -> Tensor | Linear:
        """Move ``x`` from ``sigma`` to ``to`` along the flow of a constant ``denoised``.

        (t/s) x + (alpha_t - alpha_s t/s) D: exact for constant D, finite at s = 1.

        Args:
            x: State at ``sigma``, any shape. Where it or D is a ``Linear``, so is the answer.
            denoised: D, same shape.
            sigma: Noise level s > 0.
            to: Noise level t >= 0, on either side of s.
        """
        ratio = to / sigma
        return mix((ratio, x), (self.alpha(to) - self.alpha(sigma) * ratio, denoised))

    @overload
    def renoise(self, x: Tensor, sigma: float, to: float, noise: Tensor) -> Tensor: ...
    @overload
    def renoise(self, x: Linear, sigma: float, to: float, noise: Tensor | Linear) -> Linear: ...
    def renoise(self, x: Tensor | Linear, sigma: float, to: float, noise: Any) -> Tensor | Linear:
        """Add fresh noise so that ``x`` at ``sigma`` becomes a sample at ``to`` >= ``sigma``.

        (alpha_u/alpha_t) x + sqrt(u^2 - (alpha_u t/alpha_t)^2) n.

        Raises:
            InputError: ``to`` lies below ``sigma``, or above the path.
        """
        if not sigma <= to <= self.sigma_max:
            raise InputError(
                "renoise goes up",
                value=(sigma, to),
                remedy=f"give a target of at least sigma and at most {self.sigma_max:g}",
            )
        if to == sigma:
            return x
        scale = self.alpha(to) / self.alpha(sigma)
        return mix((scale, x), (math.sqrt(max(to**2 - (scale * sigma) ** 2, 0.0)), noise))

    def sigma_down(self, sigma: float, to: float, eta: float, rule: str = "lift") -> float:
        """Where a stochastic step from ``sigma`` to ``to`` goes before noise lifts it to ``to``.

        With r = ve(to)/ve(sigma):

        - ``lift``: ve(to) sqrt(1 - eta^2 (1 - r^2)): the DDPM posterior at eta = 1
          (k-diffusion's ancestral split, applied to the lifted state);
        - ``sde``: ve(to) r^eta: the exponential integrator of the reverse SDE (SDE-DPM-Solver++);
        - ``linear``: to (1 + eta (to/sigma - 1)), in sigma itself, as ComfyUI does on flows.

        Args:
            sigma: Start of the step.
            to: End of the step, below ``sigma``.
            eta: 0 is deterministic; 1 the full posterior.
            rule: One of the names above.

        Raises:
            InputError: An unknown rule, or an ``eta`` outside what the rule allows.
        """
        if rule not in RULES:
            raise InputError("unknown rule", value=rule, remedy=f"use one of {', '.join(RULES)}")
        if not 0.0 <= eta <= (math.inf if rule == "sde" else 1.0):
            most = "more" if rule == "sde" else "1"
            raise InputError(
                f"eta out of range for rule {rule}", value=eta, remedy=f"use 0 to {most}"
            )
        if eta == 0.0 or to == 0.0:
            return to
        if rule == "linear":
            return to * (1.0 + eta * (to / sigma - 1.0))
        ve_to = self.ve(to)
        ratio = ve_to / self.ve(sigma)
        down = ratio**eta if rule == "sde" else math.sqrt(1.0 - eta**2 * (1.0 - ratio**2))
        return min(self.from_ve(ve_to * down), to)


class RectifiedFlow(Path):
    """alpha = 1 - s, s in [0, 1]: Wan and other flow-matching models; v = n - x0."""

    name = "flow"
    sigma_max = 1.0

    def alpha(self, sigma: float) -> float:  # noqa: D102
        return 1.0 - sigma

    def from_ve(self, ve: float) -> float:  # noqa: D102
        return 1.0 if math.isinf(ve) else ve / (1.0 + ve)


class VarianceExploding(Path):
    """alpha = 1, s in [0, inf): EDM and k-diffusion models."""

    name = "ve"
    sigma_max = math.inf

    def alpha(self, sigma: float) -> float:  # noqa: D102
        return 1.0

    def from_ve(self, ve: float) -> float:  # noqa: D102
        return ve


PATHS: dict[str, type[Path]] = {p.name: p for p in (RectifiedFlow, VarianceExploding)}


def as_path(path: str | Path) -> Path:
    """``flow``, ``ve``, or a Path itself.

    Raises:
        InputError: For another name.
    """
    if isinstance(path, Path):
        return path
    if path not in PATHS:
        raise InputError("unknown path", value=path, remedy=f"use one of {', '.join(PATHS)}")
    return PATHS[path]()
