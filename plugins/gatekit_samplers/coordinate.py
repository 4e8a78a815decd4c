"""The axis along which multistep samplers interpolate."""

from __future__ import annotations

from typing import Literal

from gatekit import SamplerParams

Coordinate = Literal["lam", "u", "s", "theta", "ve"]


class MultistepParams(SamplerParams):
    """Parameters of multistep samplers.

    Attributes:
        coordinate: lam = log(alpha/s) (Wan, diffusers), u = -log s (ComfyUI, k-diffusion run
            directly), s, theta = atan2(alpha, s), ve = s/alpha.
    """

    coordinate: Coordinate = "lam"
