"""The core alone: sample with plain functions D(x, sigma), one phase or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as default
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gatekit.errors import InputError
from gatekit.history import HistoryPolicy
from gatekit.ledger import Checkpoint, Observer
from gatekit.noise import NoiseSource
from gatekit.path import as_path
from gatekit.phase import Phase
from gatekit.runner import run_stages
from gatekit.sampler import Sampler
from gatekit.sigmas import as_sigmas
from gatekit.stage import Denoiser, Stage, plain
from gatekit.validate import said

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.path import Path
    from gatekit.state import State, Trajectory


@dataclass(frozen=True)
class FunctionPhase:
    """One phase of ``sample_phases``.

    Attributes:
        denoise: D(x, sigma) -> prediction of x0, same shape, a fresh tensor.
        sampler: A name, or a Sampler.
        sigmas: Its sigmas, descending; the first is the last of the phase before.
        field: Name of what predicts; phases that share it share their history. None: the
            callable's identity.
        history: Policy by which this phase is entered: a name, or a HistoryPolicy.
        params: Parameters of a sampler given by name.
        strategy: A name, or a class of Phase.
        strategy_params: Parameters of the strategy.
        name: For records and errors; ``phases[i]`` if None.
    """

    denoise: Denoiser
    sampler: str | Sampler = "dpmpp_2m"
    sigmas: Iterable[Any] = ()
    field: str | None = None
    history: str | HistoryPolicy = "carry"
    params: Mapping[str, Any] = default(default_factory=dict[str, Any])
    strategy: str | type[Phase] = "grid"
    strategy_params: Mapping[str, Any] = default(default_factory=dict[str, Any])
    name: str | None = None


OBJECTS: dict[str, type] = {"sampler": Sampler, "history": HistoryPolicy}


def make(kind: str, given: Any, params: Mapping[str, Any], where: str) -> Any:
    """A plugin object from a name and parameters, or the object itself.

    Raises:
        PluginError: Unknown name.
        InputError: Parameters that its ``Params`` refuse, parameters beside an object, or an
            object of another kind.
    """
    if not isinstance(given, str):
        if params:
            raise InputError(
                "parameters beside a ready object",
                where=where,
                value=dict(params),
                remedy="give the name and parameters, or the object made with them",
            )
        if not isinstance(given, OBJECTS[kind]):
            raise InputError(
                f"a {kind} is a name, or an object of a class of {OBJECTS[kind].__name__}",
                where=where,
                value=given,
                remedy=f"call the class: {given.__name__}()" if isinstance(given, type) else None,
            )
        return given
    from gatekit.registry import registry

    found: Any = registry().get(kind, given)
    return found(make_params(found, params, where))


def make_params(cls: Any, params: Mapping[str, Any], where: str) -> Any:
    """``cls.Params`` from a mapping; pydantic's complaint becomes an InputError."""
    try:
        return cls.Params(**params)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            "unknown parameter" if first["type"] == "extra_forbidden" else said(first),
            where=f"{where}.{place}" if place else where,
            value=first.get("input"),
            remedy=f"{cls.name!r} takes: {', '.join(cls.Params.model_fields) or 'no parameters'}",
        ) from error


def make_stage(phase: FunctionPhase, index: int, path: Path) -> Stage:
    """A runnable stage of a FunctionPhase."""
    where = phase.name or f"phases[{index}]"
    sigmas = as_sigmas(phase.sigmas, path)
    strategy: Any = phase.strategy
    if isinstance(strategy, str):
        from gatekit.registry import registry

        strategy = registry().get("strategy", strategy)
    return Stage(
        name=where,
        field=phase.field if phase.field is not None else f"function-{id(phase.denoise):x}",
        sampler=make("sampler", phase.sampler, phase.params, f"{where}.sampler"),
        strategy=strategy(
            sigmas, make_params(strategy, phase.strategy_params, f"{where}.strategy")
        ),
        history=make("history", phase.history, {}, f"{where}.history"),
        open=plain(phase.denoise),
    )


def trace_phases(
    phases: Sequence[FunctionPhase],
    x: Tensor,
    *,
    seed: int | Sequence[int] = 0,
    path: str | Path = "flow",
    observers: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None,
    resume_from: State | None = None,
    hooks: Any = None,
) -> Trajectory:
    """``sample_phases``, with the final state and the record of each interval."""
    noise_path = as_path(path)
    stages = [make_stage(phase, i, noise_path) for i, phase in enumerate(phases)]
    for i, (a, b) in enumerate(pairwise(stages)):
        if abs(a.sigmas[-1] - b.sigmas[0]) > 1e-6:
            raise InputError(
                f"{b.name} starts at another sigma than {a.name} ends at",
                where=f"phases[{i + 1}].sigmas",
                value=b.sigmas[0],
                remedy=f"start at {a.sigmas[-1]!r}: slices of one grid share their end point",
            )
    return run_stages(
        stages,
        x,
        noise=NoiseSource(seed),
        path=noise_path,
        observers=observers,
        checkpoint=checkpoint,
        resume_from=resume_from,
        hooks=hooks,
    )


def sample_phases(
    phases: Sequence[FunctionPhase],
    x: Tensor,
    *,
    seed: int | Sequence[int] = 0,
    path: str | Path = "flow",
    observers: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None,
    resume_from: State | None = None,
) -> Tensor:
    """Sample through several phases of one path.

    Args:
        phases: In order; each begins at the sigma where the one before ends.
        x: State at the first sigma, ``[B, ...]``: noise scaled to it, not made here.
        seed: Of samplers' noise: an int, or one a sample.
        path: ``flow`` or ``ve``, or a Path.
        observers: Called after each interval with (state, record, denoised).
        checkpoint: Called after each interval with (state, record).
        resume_from: A State to continue from.

    Returns:
        x at the last sigma, ``[B, ...]``, float32 or float64.

    Raises:
        InputError: Sigmas that do not fit, unknown parameters.
        PluginError: An unknown sampler, strategy or history policy.
        NumericsError: A prediction is not finite.
    """
    run = trace_phases(
        phases,
        x,
        seed=seed,
        path=path,
        observers=observers,
        checkpoint=checkpoint,
        resume_from=resume_from,
    )
    return run.x


def sample(
    denoise: Denoiser,
    x: Tensor,
    sigmas: Iterable[Any],
    *,
    sampler: str | Sampler = "dpmpp_2m",
    seed: int | Sequence[int] = 0,
    path: str | Path = "flow",
    observers: Sequence[Observer] = (),
    **sampler_params: Any,
) -> Tensor:
    """Sample with one denoiser over one grid: ``sample_phases`` with a single phase.

    Args:
        denoise: D(x, sigma) -> prediction of x0, sigma a Python float.
        x: State at ``sigmas[0]``, ``[B, ...]``.
        sigmas: Descending, usually to 0.
        sampler: A name (``gatekit samplers`` lists them), or a Sampler.
        seed: Of the sampler's noise.
        path: ``flow`` or ``ve``, or a Path.
        observers: Called after each interval with (state, record, denoised).
        **sampler_params: Parameters of the sampler.

    Returns:
        x at the last sigma.
    """
    phase = FunctionPhase(denoise, sampler, sigmas, params=sampler_params, name="sample")
    return sample_phases([phase], x, seed=seed, path=path, observers=observers)
