"""Checks against known truth: orders, exactness, distributions, finite values."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from gatekit.functional import FunctionPhase, trace_phases
from gatekit.path import RectifiedFlow, VarianceExploding
from gatekit.sampler import Sampler
from gatekit.state import State
from gatekit.testing.common import GRID, draw, trace
from gatekit.testing.fields import Constant, Gaussian, Mixture

if TYPE_CHECKING:
    from torch import Tensor

PATHS = ((RectifiedFlow(), 1.0), (VarianceExploding(), 10.0))
START, END = 0.9, 0.2
ROUNDING = 1e-11


@cache
def mixture_truth() -> Tensor:
    """The flow of ``draw(2, 8)`` from START to END, once for all order checks."""
    coarse, fine = (Mixture().flow(draw(2, 8), START, END, steps=n) for n in (150, 300))
    return (16 * fine - coarse) / 15


def measured_order(
    end: Callable[[list[float]], Tensor], truth: Tensor, steps: int = 40
) -> float | None:
    """log2 of the errors' ratio as ``steps`` double; None where rounding hides it."""
    errors: list[float] = []
    for n in (steps, 2 * steps):
        grid = [START + (END - START) * i / n for i in range(n)] + [END]
        errors.append(float((end(grid) - truth).square().mean().sqrt()))
    return None if errors[1] < ROUNDING else math.log2(errors[0] / errors[1])


def at_least(order: int, end: Callable[[list[float]], Tensor], truth: Tensor, where: str) -> None:
    """The order is reached, at more steps where errors of opposite sign hide it at few."""
    measured = measured_order(end, truth)
    if measured is None or measured >= order - 0.3:
        return
    measured = measured_order(end, truth, steps=160)
    assert measured is None or measured >= order - 0.5, (
        f"declared order {order}, measured {measured:.2f} {where}"
    )


def check_order(sampler: Sampler) -> None:
    """The declared order is the measured one: within 0.3 on a mixture, not less on a Gaussian."""
    if sampler.stochastic or sampler.adaptive:
        return
    x, linear = draw(2, 8), Gaussian()
    measured = measured_order(lambda grid: trace(sampler, Mixture(), x, grid).x, mixture_truth())
    assert measured is None or abs(measured - sampler.order) <= 0.3, (
        f"declared order {sampler.order}, measured {measured:.2f} on a mixture"
    )
    truth = linear.flow(x, START, END)
    at_least(sampler.order, lambda grid: trace(sampler, linear, x, grid).x, truth, "on a Gaussian")


def check_reset(sampler: Sampler) -> None:
    """History lost in the midst of a run costs no order."""
    if sampler.stochastic or sampler.adaptive or not sampler.history:
        return
    field, x = Mixture(), draw(2, 8)

    def end(grid: list[float]) -> Tensor:
        half = len(grid) // 2
        above = FunctionPhase(field, sampler, grid[: half + 1], field="above")
        below = FunctionPhase(field, sampler, grid[half:], field="below", history="reset")
        return trace_phases([above, below], x).x

    at_least(sampler.order, end, mixture_truth(), "with history reset midway")


def check_constant(sampler: Sampler) -> None:
    """Exact for a constant D, on both paths; at sigma 0 whatever the noise was."""
    for path, top in PATHS:
        field, x, grid = Constant(), draw(2, 5), [top * s for s in GRID]
        final = trace(sampler, field, x, grid, path=path).x
        assert float((final - field.value).abs().max()) < 1e-9, f"constant D on {path.name}"
        if not sampler.stochastic:
            there = trace(sampler, field, x, grid[:5], path=path).x
            exact = path.transfer(x, x * 0 + field.value, grid[0], grid[4])
            assert float((there - exact).abs().max()) < 1e-9 * top, f"constant D on {path.name}"


def check_spread(sampler: Sampler) -> None:
    """With a constant D, x at sigma has mean alpha D and deviation sigma, on both paths."""
    if not sampler.stochastic:
        return
    field = Constant()
    for path, top in PATHS:
        noise = draw(1, 4000)
        x = path.alpha(top) * field.value + top * noise
        grid = [top * (1 - 0.5 * i / 24) for i in range(25)]
        run = trace(sampler, field, x, grid, path=path)
        sigma, mean, std = run.state.sigma, float(run.x.mean()), float(run.x.std())
        expected = path.alpha(sigma) * field.value
        where = f"constant D on {path.name} at sigma {sigma:.3g}"
        assert abs(mean - expected) < 0.06 * sigma, f"{where}: mean {mean:.3f}, not {expected:.3f}"
        assert abs(std - sigma) < 0.06 * sigma, f"{where}: deviation {std:.3f}"


def check_distribution(sampler: Sampler) -> None:
    """Samples of a Gaussian target have its mean and spread; with noise, at every sigma."""
    field, x = Gaussian(), draw(1, 4000)

    def look(state: State, record: Any, denoised: Tensor) -> None:
        if not sampler.stochastic and state.sigma > 0.0:
            return
        mean, std = float(state.x.mean()), float(state.x.std())
        centre, spread = field.path.alpha(state.sigma) * field.mean, field.variance(state.sigma)
        where = f"Gaussian target at sigma {state.sigma:.3g}"
        assert abs(mean - centre) < 0.06, f"{where}: mean {mean:.3f}, not {centre:.3f}"
        assert abs(std - spread**0.5) < 0.05, f"{where}: deviation {std:.3f}, not {spread**0.5:.3f}"

    shifted = [5 * u / (1 + 4 * u) for u in (1 - i / 120 for i in range(121))]
    trace(sampler, field, x, shifted, observers=[look])


def check_finite(sampler: Sampler) -> None:
    """Latents [B, C, T, H, W] in float32 stay finite from sigma 1 and from just below it."""
    x = draw(1, 3, 2, 4, 4, double=False)
    for grid in (GRID, (1.0, 0.9999, 0.999, 0.5, 0.0), (0.9999, 0.5, 0.001, 0.0), (1.0, 0.0)):
        final = trace(sampler, Mixture(), x, grid).x
        assert bool(final.isfinite().all()), f"not finite over {grid}"
