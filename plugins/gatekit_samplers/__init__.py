"""The built-in samplers, registered as any plugin's are."""

from __future__ import annotations

from gatekit import Sampler, hookimpl
from gatekit_samplers.dpmpp_2m import DPMpp2M
from gatekit_samplers.euler import Euler
from gatekit_samplers.heun import Heun
from gatekit_samplers.unipc import UniPC

__all__ = ["DPMpp2M", "Euler", "Heun", "UniPC", "gatekit_register_samplers"]


@hookimpl
def gatekit_register_samplers() -> list[type[Sampler]]:
    """Offer every sampler of this package."""
    return [Euler, Heun, DPMpp2M, UniPC]
