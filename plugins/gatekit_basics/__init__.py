"""What every schedule leans on: sigma grids, history policies, the grid strategy, guidance."""

from __future__ import annotations

from gatekit import (
    Auto,
    Carry,
    Close,
    Guidance,
    HistoryPolicy,
    Phase,
    Reset,
    SigmaGrid,
    hookimpl,
)
from gatekit_basics.beta import Beta
from gatekit_basics.grids import Explicit, Exponential, Karras, ShiftedLinear
from gatekit_basics.guidance import CFG, Unguided
from gatekit_basics.guidance_apg import APG
from gatekit_basics.guidance_zero_star import CFGZeroStar
from gatekit_basics.strategy import GridPhase


@hookimpl
def gatekit_register_sigmas() -> list[type[SigmaGrid]]:
    """Grids."""
    return [ShiftedLinear, Karras, Exponential, Beta, Explicit]


@hookimpl
def gatekit_register_history() -> list[type[HistoryPolicy]]:
    """History policies."""
    return [Carry, Reset, Close, Auto]


@hookimpl
def gatekit_register_phases() -> list[type[Phase]]:
    """Strategies."""
    return [GridPhase]


@hookimpl
def gatekit_register_guidance() -> list[type[Guidance]]:
    """Guidance."""
    return [CFG, CFGZeroStar, APG, Unguided]
