"""Every sampler of the real k-diffusion package, as ``k_diffusion/NAME``.

Nothing is registered where the package is not installed. Its text is read here (names and
parameters), loaded in ``package.py`` when a sampler first steps, and never copied.
"""

from __future__ import annotations

from functools import cache

from gatekit import Sampler, hookimpl
from gatekit_kdiffusion.samplers import make
from gatekit_kdiffusion.source import INSTALL, functions, sampling_file

__all__ = ["UNAVAILABLE", "gatekit_register_samplers", "sampler_classes"]

UNAVAILABLE = {} if sampling_file() else {"k_diffusion/": f"install the package: {INSTALL}"}
"""Names that this plugin would offer, and what it lacks to do so."""


@cache
def sampler_classes() -> list[type[Sampler]]:
    """One class for each ``sample_*`` function of the installed package."""
    file = sampling_file()
    return [] if file is None else [make(function) for function in functions(file)]


@hookimpl
def gatekit_register_samplers() -> list[type[Sampler]]:
    """Offer them; none without the package."""
    return sampler_classes()
