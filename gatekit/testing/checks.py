"""What every sampler must satisfy. Each check takes a Sampler and raises AssertionError."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from gatekit.functional import FunctionPhase, trace_phases
from gatekit.params import SamplerParams
from gatekit.path import RectifiedFlow, VarianceExploding
from gatekit.sampler import Sampler
from gatekit.state import State
from gatekit.testing.fields import Constant, Gaussian, Mixture

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.state import Trajectory

GRID = (1.0, 0.96, 0.9, 0.8, 0.65, 0.5, 0.3, 0.15, 0.0)


def trace(
    sampler: Sampler, denoise: Any, x: Tensor, sigmas: Sequence[float] = GRID, **options: Any
) -> Trajectory:
    """One phase, traced."""
    phase = FunctionPhase(denoise, sampler, sigmas, field="one", name="check")
    return trace_phases([phase], x, **options)


def draw(*shape: int, double: bool = True, seed: int = 7) -> Tensor:
    """Noise of the checks' own, from no global generator."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    return torch.randn(*shape, generator=generator, dtype=dtype)


def same(a: Tensor, b: Tensor, what: str) -> None:
    """Equal bit for bit."""
    gap = float((a - b).abs().max())
    assert a.equal(b), f"{what}: differs by up to {gap:.3g}, expected the same bits"


@cache
def mixture_truth() -> tuple[Tensor, float, float, Tensor]:
    """A state at 0.9 and its flow to 0.2, once for all order checks."""
    x = draw(2, 8)
    return x, 0.9, 0.2, Mixture().flow(x, 0.9, 0.2, steps=1000)


def check_declaration(sampler: Sampler) -> None:
    """Name, order, history and parameters are what the runner relies on."""
    assert isinstance(sampler.name, str) and sampler.name.strip() == sampler.name != ""  # pyright: ignore[reportUnnecessaryIsInstance]
    assert sampler.order >= 1 and sampler.history >= 0 and sampler.nfe_per_step >= 1
    assert issubclass(type(sampler).Params, SamplerParams), "Params must derive from SamplerParams"
    config = type(sampler).Params.model_config
    assert config.get("extra") == "forbid", "Params must forbid unknown keys"
    assert config.get("frozen"), "Params must be frozen"
    assert not sampler.adaptive or sampler.integrate is not None, "adaptive needs integrate"


def check_order(sampler: Sampler) -> None:
    """The declared order is the measured one, within 0.3 (deterministic, fixed steps)."""
    if sampler.stochastic or sampler.adaptive:
        return
    field, (x, start, end, truth) = Mixture(), mixture_truth()
    errors: list[float] = []
    for steps in (40, 80):
        grid = [start + (end - start) * i / steps for i in range(steps)] + [end]
        errors.append(float((trace(sampler, field, x, grid).x - truth).square().mean().sqrt()))
    measured = math.log2(errors[0] / errors[1])
    assert abs(measured - sampler.order) <= 0.3, (
        f"declared order {sampler.order}, measured {measured:.2f} (errors {errors})"
    )


def check_constant(sampler: Sampler) -> None:
    """Exact for a constant D, on both paths; at sigma 0 whatever the noise was."""
    for path, top in ((RectifiedFlow(), 1.0), (VarianceExploding(), 10.0)):
        field, x, grid = Constant(), draw(2, 5), [top * s for s in GRID]
        final = trace(sampler, field, x, grid, path=path).x
        assert float((final - field.value).abs().max()) < 1e-9, f"constant D on {path.name}"
        if not sampler.stochastic:
            there = trace(sampler, field, x, grid[:5], path=path).x
            exact = path.transfer(x, x * 0 + field.value, grid[0], grid[4])
            assert float((there - exact).abs().max()) < 1e-9 * top, f"constant D on {path.name}"


def check_distribution(sampler: Sampler) -> None:
    """Many samples of a Gaussian target have its mean and spread."""
    field, x = Gaussian(), draw(1, 4000)
    shifted = [5 * u / (1 + 4 * u) for u in (1 - i / 120 for i in range(121))]
    final = trace(sampler, field, x, shifted).x
    mean, std = float(final.mean()), float(final.std())
    assert abs(mean - field.mean) < 0.05, f"mean {mean:.3f}, the target's is {field.mean}"
    assert abs(std - field.std) < 0.05, f"spread {std:.3f}, the target's is {field.std}"


def check_nfe(sampler: Sampler) -> None:
    """Evaluations a step are as declared, and the last interval takes at most one."""
    if sampler.adaptive:
        return
    records = trace(sampler, Mixture(), draw(1, 4)).records
    # The first step of a method that reuses its last evaluation costs one more.
    found = [r.nfe for r in records[1:-1]]
    assert found == [sampler.nfe_per_step] * len(found), f"declared {sampler.nfe_per_step}: {found}"
    assert records[0].nfe - sampler.nfe_per_step in (0, 1), f"first step: {records[0].nfe}"
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


CHECKS: tuple[Callable[[Sampler], None], ...] = (
    check_declaration,
    check_order,
    check_constant,
    check_distribution,
    check_nfe,
    check_interval,
    check_split,
    check_resume,
    check_batch,
    check_random,
    check_types,
    check_boundary,
)
