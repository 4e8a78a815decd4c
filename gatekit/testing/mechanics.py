"""Checks of the mechanics: what a sampler declares, evaluates, draws, keeps and changes."""

from __future__ import annotations

import copy
import random
import tempfile
from itertools import pairwise
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gatekit.functional import FunctionPhase, trace_phases
from gatekit.params import SamplerParams
from gatekit.sampler import Sampler
from gatekit.state import State
from gatekit.testing.common import GRID, draw, same, trace
from gatekit.testing.fields import Gaussian, Mixture

if TYPE_CHECKING:
    from torch import Tensor


def check_declaration(sampler: Sampler) -> None:
    """Name, order, history and parameters are what the runner relies on."""
    assert isinstance(sampler.name, str) and sampler.name.strip() == sampler.name != ""  # pyright: ignore[reportUnnecessaryIsInstance]
    assert sampler.order >= 1 and sampler.history >= 0 and sampler.nfe_per_step >= 1
    assert issubclass(type(sampler).Params, SamplerParams), "Params must derive from SamplerParams"
    config = type(sampler).Params.model_config
    assert config.get("extra") == "forbid", "Params must forbid unknown keys"
    assert config.get("frozen"), "Params must be frozen"
    assert not sampler.adaptive or sampler.integrate is not None, "adaptive needs integrate"


def check_source(sampler: Sampler) -> None:
    """The docstring says where the method comes from."""
    text = (type(sampler).__doc__ or "").lower()
    assert any(word in text for word in ("source", "arxiv", "doi", "http")), (
        f"cite the method's source in the docstring of {type(sampler).__name__}"
    )


def check_parameters(sampler: Sampler) -> None:
    """Parameters that it does not have are refused, and those that it has cannot be changed."""
    try:
        type(sampler).Params(**{"no_such_parameter": 1})
    except ValidationError:
        pass
    else:
        raise AssertionError("Params accepts a parameter that does not exist")
    for name in type(sampler).Params.model_fields:
        try:
            setattr(sampler.params, name, None)
        except ValidationError:
            continue
        raise AssertionError(f"params.{name} can be changed: Params must be frozen")


def check_pure(sampler: Sampler) -> None:
    """An instance remembers nothing: what it did before changes no bit."""
    fresh, field, x = copy.deepcopy(sampler), Mixture(), draw(2, 6)
    trace(sampler, field, draw(2, 6, seed=8), GRID[:4], seed=9)
    new = vars(sampler).keys() - vars(fresh).keys()
    assert not new, f"keeps {', '.join(sorted(new))} in self: return it as StepResult.memory"
    after, first = (trace(s, field, x, GRID[3:]).x for s in (sampler, fresh))
    same(after, first, "an instance that was used before")


def check_nfe(sampler: Sampler) -> None:
    """Evaluations a step are as declared, and the last interval takes at most one."""
    if sampler.adaptive:
        return
    records = trace(sampler, Mixture(), draw(1, 4)).records
    # A method that reuses its last evaluation needs one more for the first step; one that cannot
    # leave sigma 1 by its own rule may take fewer.
    found = [r.nfe for r in records[1:-1]]
    assert found == [sampler.nfe_per_step] * len(found), f"declared {sampler.nfe_per_step}: {found}"
    assert 1 <= records[0].nfe <= sampler.nfe_per_step + 1, f"first step: {records[0].nfe}"
    assert records[-1].nfe <= 1, f"the interval to 0: {records[-1].nfe}"


def check_interval(sampler: Sampler) -> None:
    """No evaluation outside the step's interval, none at 0."""
    asked: list[float] = []
    field = Mixture()

    def watched(x: Tensor, sigma: float) -> Tensor:
        assert isinstance(sigma, float), "sigma must be a Python float"  # pyright: ignore[reportUnnecessaryIsInstance]
        asked.append(sigma)
        return field(x, sigma)

    def look(state: State, record: Any, denoised: Tensor) -> None:
        low = 0.0 if sampler.adaptive else record.sigma_next
        out = [s for s in asked if not low <= s <= record.sigma or s <= 0.0]
        assert not out, f"evaluated at {out} in the step {record.sigma} to {record.sigma_next}"
        asked.clear()

    trace(sampler, watched, draw(1, 4), observers=[look])


def check_split(sampler: Sampler) -> None:
    """Cutting a phase in two, anywhere, changes no bit."""
    if sampler.adaptive:
        return
    field, x = Mixture(), draw(2, 6)
    whole = trace(sampler, field, x).x
    for cut in range(1, len(GRID) - 1):
        parts = [
            FunctionPhase(field, sampler, sigmas, field="one")
            for sigmas in (GRID[: cut + 1], GRID[cut:])
        ]
        same(trace_phases(parts, x).x, whole, f"cut at sigma {GRID[cut]}")


def check_resume(sampler: Sampler) -> None:
    """A run resumed from any saved state ends in the same bits."""
    field, x, kept = Mixture(), draw(2, 6), list[State]()

    def keep(state: State, record: Any) -> None:
        kept.append(state)

    whole = trace(sampler, field, x, checkpoint=keep).x
    with tempfile.TemporaryDirectory() as folder:
        for i, state in enumerate(kept):
            file = File(folder) / f"{i}.safetensors"
            state.save(file)
            resumed = trace(sampler, field, x, resume_from=State.load(file)).x
            same(resumed, whole, f"resumed at sigma {state.sigma}")


def check_batch(sampler: Sampler) -> None:
    """A sample does not depend on its companions."""
    if sampler.adaptive:
        return
    field, x, seeds = Mixture(), draw(3, 6), (11, 5, 8)
    together = trace(sampler, field, x, seed=seeds).x
    for i, seed in enumerate(seeds):
        alone = trace(sampler, field, x[i : i + 1], seed=seed).x[0]
        gap = float((alone - together[i]).abs().max())
        assert gap < 1e-9, f"sample {i} differs by {gap:.3g} from itself alone"


def check_random(sampler: Sampler) -> None:
    """The same seed gives the same bits, through no global generator."""
    import numpy
    import torch

    field, x = Mixture(), draw(1, 6)
    before = (torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist())  # type: ignore[index, union-attr]  # pyright: ignore
    first = trace(sampler, field, x, seed=3).x
    after = (torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist())  # type: ignore[index, union-attr]  # pyright: ignore
    assert before[0].equal(after[0]), "used torch's global generator"
    assert before[1:] == after[1:], "used a global generator of random or numpy"
    same(trace(sampler, field, x, seed=3).x, first, "the same seed")
    other = trace(sampler, field, x, seed=4).x
    assert sampler.stochastic or other.equal(first), "draws noise but is not declared stochastic"


def check_types(sampler: Sampler) -> None:
    """float64 and float32 are kept, others become float32; any shape; nothing in place."""
    import torch

    field, x = Mixture(), draw(1, 2, 2, 3, 2)
    kept, version = x.clone(), x._version  # pyright: ignore[reportPrivateUsage]
    assert trace(sampler, field, x).x.dtype == torch.float64
    assert x.equal(kept) and x._version == version, "changed the given x in place"  # pyright: ignore[reportPrivateUsage]
    single = trace(sampler, field, x.float()).x
    assert single.dtype == torch.float32 and single.shape == x.shape
    assert trace(sampler, field, x.bfloat16()).x.dtype == torch.float32

    made: list[tuple[Tensor, int]] = []

    def watched(x: Tensor, sigma: float) -> Tensor:
        denoised = field(x, sigma)
        made.append((denoised, denoised._version))  # pyright: ignore[reportPrivateUsage]
        return denoised

    trace(sampler, watched, x)
    assert all(d._version == v for d, v in made), "changed a prediction in place"  # pyright: ignore[reportPrivateUsage]


def check_boundary(sampler: Sampler) -> None:
    """Every history policy takes it over a change of model, and goes down the grid."""
    high, low, x = Mixture(), Gaussian(), draw(1, 6)
    for policy in ("carry", "reset", "close", "auto"):
        run = trace_phases(
            [
                FunctionPhase(high, sampler, GRID[:5], field="high"),
                FunctionPhase(low, sampler, GRID[4:], field="low", history=policy),
            ],
            x,
        )
        assert bool(run.x.isfinite().all()), f"history {policy}: not finite"
        assert all(a > b for a, b in pairwise(run.sigmas)), f"history {policy}: {run.sigmas}"
