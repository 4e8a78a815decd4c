"""The hooks through which every plugin, built-in or third-party, joins gatekit.

A plugin is a module (or object) named by an entry point of the group ``gatekit``.
Each function it marks with ``@gatekit.hookimpl`` is called with the arguments below;
it may name fewer of them than are offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.check import Check
    from gatekit.family import ModelFamily
    from gatekit.guidance import Guidance
    from gatekit.history import HistoryPolicy
    from gatekit.metric import Metric
    from gatekit.phase import Phase
    from gatekit.sampler import Sampler
    from gatekit.sigmas import SigmaGrid
    from gatekit.state import Record, State
    from gatekit.stepcache import StepCache
    from gatekit.variant import ModelVariant

PROJECT = "gatekit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def gatekit_register_samplers() -> Sequence[type[Sampler]]:
    """Return Sampler classes; each is found by its ``name``."""
    ...


@hookspec
def gatekit_register_phases() -> Sequence[type[Phase]]:
    """Return Phase classes (strategies), found by ``name``: ``phases[].strategy.use``."""
    ...


@hookspec
def gatekit_register_variants() -> Sequence[type[ModelVariant]]:
    """Return ModelVariant classes, found by ``(family, name)``: ``variants.*.use``."""
    ...


@hookspec
def gatekit_register_families() -> Sequence[type[ModelFamily]]:
    """Return ModelFamily classes, found by ``name``: ``family.use``."""
    ...


@hookspec
def gatekit_register_sigmas() -> Sequence[type[SigmaGrid]]:
    """Return SigmaGrid classes, found by ``name``: ``sigmas.use``."""
    ...


@hookspec
def gatekit_register_guidance() -> Sequence[type[Guidance]]:
    """Return Guidance classes, found by ``name``: ``phases[].guidance.use``."""
    ...


@hookspec
def gatekit_register_caches() -> Sequence[type[StepCache]]:
    """Return StepCache classes, found by ``name``: ``phases[].cache``."""
    ...


@hookspec
def gatekit_register_history() -> Sequence[type[HistoryPolicy]]:
    """Return HistoryPolicy classes, found by ``name``: ``phases[].history``."""
    ...


@hookspec
def gatekit_register_metrics() -> Sequence[type[Metric]]:
    """Return Metric classes, found by ``name``: ``metrics`` of a sweep."""
    ...


@hookspec
def gatekit_register_checks() -> Sequence[Check]:
    """Return Check objects: lines of ``gatekit doctor`` on what the plugin needs."""
    ...


@hookspec
def gatekit_register_commands(app: Any) -> None:
    """Add commands to ``app``, the ``typer.Typer`` of the command line."""


@hookspec(firstresult=True)
def gatekit_cross_boundary(state: State, leaving: str, entering: str) -> State | None:
    """Change the state between two phases; the first result that is not None wins.

    Called between ``HistoryPolicy.leave`` and ``HistoryPolicy.enter`` with the names of
    the phases. A changed ``x`` invalidates ``start`` of every past evaluation.
    """


@hookspec
def gatekit_run_start(plan: Any, state: State) -> None:
    """Observe: a run begins. ``plan`` is None for runs of plain functions."""


@hookspec
def gatekit_phase_start(phase: str, state: State) -> None:
    """Observe: a phase begins with ``state``."""


@hookspec
def gatekit_step_end(state: State, record: Record, denoised: Tensor) -> None:
    """Observe: a step ended. Read-only; raise ``gatekit.Cancelled`` to stop."""


@hookspec
def gatekit_phase_end(phase: str, state: State) -> None:
    """Observe: a phase ended with ``state``."""


@hookspec
def gatekit_run_end(plan: Any, state: State) -> None:
    """Observe: a run ended with ``state``."""
