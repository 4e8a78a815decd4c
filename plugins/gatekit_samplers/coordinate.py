"""The axis along which multistep samplers interpolate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gatekit import SamplerParams

Coordinate = Literal["lam", "u", "s", "theta", "ve"]


class MultistepParams(SamplerParams):
    """Parameters of multistep samplers.

    Attributes:
        coordinate: lam = log(alpha/s) (Wan, diffusers), u = -log s (ComfyUI, k-diffusion run
            directly), s, theta = atan2(alpha, s), ve = s/alpha.
    """

    coordinate: Coordinate = "lam"


class NoisyMultistepParams(MultistepParams):
    """Parameters of stochastic multistep samplers.

    Attributes:
        coordinate: Axis of interpolation; see MultistepParams.
        eta: Strength of the noise: 0 is deterministic, 1 the reverse SDE of the diffusion.
    """

    eta: float = Field(1.0, ge=0, le=2)
