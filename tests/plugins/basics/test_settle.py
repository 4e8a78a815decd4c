"""``settle``: ends by its measure, within its bounds, and lengthens no step."""

from itertools import pairwise

import pytest
import torch

import gatekit
from gatekit.functional import trace_phases
from gatekit.testing import Constant, Mixture
from gatekit_basics.settle import Settle, SettleParams

GRID = [5 * u / (1 + 4 * u) for u in (1 - i / 20 for i in range(21))]
CUT = 12
X = torch.randn(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(first, second="grid", x=X, high=None, sampler="euler", **params):
    phases = [
        gatekit.FunctionPhase(
            high or Mixture(), sampler, GRID[: CUT + 1], field="high",
            strategy=first, strategy_params=params,
        ),
        gatekit.FunctionPhase(
            Mixture(), sampler, GRID[CUT:], field="low", history="carry", strategy=second
        ),
    ]  # fmt: skip
    return trace_phases(phases, x)


def taken(trajectory, name="phases[0]"):
    return sum(record.phase == name for record in trajectory)


def test_a_constant_settles_at_once_and_the_next_phase_takes_the_rest():
    done = run("settle", high=Constant())
    assert taken(done) == 2
    assert done.sigmas == tuple(GRID)


def test_it_ends_where_the_measure_says():
    threshold, field = 0.7, Mixture()
    done = run("settle", high=field, threshold=threshold)
    x, predictions = X, []
    for i in range(CUT):
        predictions.append(field(x, GRID[i]))
        if i >= 1:
            new, old = predictions[-1], predictions[-2]
            rate = (new - old).square().mean(1).sqrt() / new.square().mean(1).sqrt()
            left = rate * (GRID[i] - GRID[CUT]) / (GRID[i - 1] - GRID[i])
            if float(left.max()) <= threshold:
                break
        x = x + (GRID[i + 1] - GRID[i]) * (x - predictions[-1]) / GRID[i]
    assert 2 < i + 1 < CUT
    assert taken(done) == i + 1


def test_bounds():
    assert taken(run("settle", high=Constant(), min_steps=5)) == 5
    late = run("settle", high=Constant(), below=0.9)
    assert GRID[taken(late)] == max(s for s in GRID if s <= 0.9)
    assert taken(run("settle", threshold=1e-9)) == CUT


def test_with_one_model_it_changes_no_bit():
    whole = gatekit.sample(Mixture(), X, GRID, sampler="unipc")
    phases = [
        gatekit.FunctionPhase(
            Mixture(), "unipc", part, field="one", strategy=strategy, strategy_params=params
        )
        for part, strategy, params in (
            (GRID[: CUT + 1], "settle", {"threshold": 0.7}),
            (GRID[CUT:], "grid", {}),
        )
    ]
    done = trace_phases(phases, X)
    assert taken(done) < CUT and done.x.equal(whole)


@pytest.mark.parametrize("second", ["grid", "restart", "settle"])
def test_no_step_is_longer_than_the_grids(second):
    done = run("settle", second, high=Constant())
    down = [(a, b) for a, b in pairwise(done.sigmas[: CUT + 2]) if b < a]
    assert set(down) <= set(pairwise(GRID))


def test_the_last_phase_goes_to_the_end():
    phase = gatekit.FunctionPhase(Constant(), "euler", GRID, strategy="settle")
    done = trace_phases([phase], X)
    assert done.state.sigma == 0.0 and len(done) == 3
    assert torch.allclose(done.x, torch.full_like(X, Constant().value))


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_resumed_run_decides_alike(at):
    kept = []
    phases = [
        gatekit.FunctionPhase(
            Mixture(), "unipc", part, field=name, strategy=strategy, strategy_params=params
        )
        for part, name, strategy, params in (
            (GRID[: CUT + 1], "high", "settle", {"threshold": 0.7}),
            (GRID[CUT:], "low", "grid", {}),
        )
    ]
    whole = trace_phases(phases, X, observers=[lambda state, *_: kept.append(state)])
    again = trace_phases(phases, X, resume_from=kept[at])
    assert taken(whole) > 2 and again.x.equal(whole.x)


def test_the_measure_waits_for_the_worst_sample():
    alone = [taken(run("settle", threshold=0.6, x=X[i : i + 1])) for i in (0, 1)]
    assert alone[0] != alone[1]
    assert taken(run("settle", threshold=0.6)) == max(alone)


def test_the_plan_says_what_is_known():
    strategy = Settle(GRID[: CUT + 1], SettleParams(below=0.95, threshold=0.1))
    text = strategy.within(GRID).remark()
    first = max(s for s in GRID if s <= 0.95)
    assert f"at most {CUT} steps" in text and f"from sigma {first:.4g}" in text
    assert "the next phase takes those left out" in text
    assert "one step to the end" in Settle(GRID).remark()
    assert "none left" in Settle(GRID[:3], SettleParams()).within(GRID).remark()


@pytest.mark.parametrize("params", [{"threshold": 0}, {"min_steps": 1}, {"below": 0}])
def test_parameters_are_checked(params):
    with pytest.raises(gatekit.InputError):
        run("settle", **params)
