"""What every schedule leans on: grids, history policies, strategies, guidance, step caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import (
    Auto,
    Carry,
    Close,
    Guidance,
    HistoryPolicy,
    Phase,
    Reset,
    SigmaGrid,
    StepCache,
    hookimpl,
)
from gatekit_basics.beta import Beta
from gatekit_basics.cache_first_block import FirstBlock
from gatekit_basics.cache_mag import Mag
from gatekit_basics.caches import Uncached
from gatekit_basics.curvature import Curvature
from gatekit_basics.flow_grids import LamUniform, Tangent, ThetaUniform, YUniform
from gatekit_basics.grids import Explicit, Exponential, Karras, ShiftedLinear
from gatekit_basics.guidance import CFG, Unguided
from gatekit_basics.guidance_apg import APG
from gatekit_basics.guidance_zero_star import CFGZeroStar
from gatekit_basics.restart import Restart
from gatekit_basics.settle import Settle
from gatekit_basics.strategy import GridPhase

if TYPE_CHECKING:
    import typer


@hookimpl
def gatekit_register_sigmas() -> list[type[SigmaGrid]]:
    """Grids."""
    shaped = [YUniform, LamUniform, ThetaUniform, Tangent, Curvature]
    return [ShiftedLinear, Karras, Exponential, Beta, *shaped, Explicit]


@hookimpl
def gatekit_register_history() -> list[type[HistoryPolicy]]:
    """History policies."""
    return [Carry, Reset, Close, Auto]


@hookimpl
def gatekit_register_phases() -> list[type[Phase]]:
    """Strategies."""
    return [GridPhase, Restart, Settle]


@hookimpl
def gatekit_register_guidance() -> list[type[Guidance]]:
    """Guidance."""
    return [CFG, CFGZeroStar, APG, Unguided]


@hookimpl
def gatekit_register_caches() -> list[type[StepCache]]:
    """Step caches."""
    return [FirstBlock, Mag, Uncached]


@hookimpl
def gatekit_register_commands(app: typer.Typer) -> None:
    """``gatekit curvature``, ``gatekit fit`` and ``gatekit step-cache``."""
    from gatekit_basics.cache_command import step_cache
    from gatekit_basics.curvature_command import curvature
    from gatekit_basics.fit_command import fit_command

    app.command("step-cache")(step_cache)
    app.command("curvature")(curvature)
    app.command("fit")(fit_command)
