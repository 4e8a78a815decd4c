"""Every sampler of the real k-diffusion package, as ``k_diffusion/NAME``.

Nothing is registered where the package is not installed. Its text is read here (names and
parameters), loaded in ``package.py`` when a sampler first steps, and never copied.
"""

from __future__ import annotations

from functools import cache

from gatekit import Sampler, hookimpl
from gatekit_kdiffusion.samplers import make
from gatekit_kdiffusion.source import functions, sampling_file

__all__ = ["gatekit_register_samplers", "sampler_classes"]


@cache
def sampler_classes() -> list[type[Sampler]]:
    """One class for each ``sample_*`` function of the installed package."""
    file = sampling_file()
    return [] if file is None else [make(function) for function in functions(file)]


@hookimpl
def gatekit_register_samplers() -> list[type[Sampler]]:
    """Offer them; none without the package."""
    return sampler_classes()
