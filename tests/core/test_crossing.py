"""What crosses a boundary and what does not; what a step draws; what an evaluation becomes."""

from itertools import pairwise

import pytest
import torch

from gatekit import (
    FunctionPhase,
    NoiseSource,
    NumericsError,
    Phase,
    Renoise,
    Sampler,
    Step,
    StepResult,
)
from gatekit.functional import trace_phases
from gatekit.stage import Engine, extremes
from gatekit.testing import Constant, Mixture

GRID = (1.0, 0.8, 0.5, 0.2, 0.0)
X = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))


class Up(Phase):
    """Down the grid, up to its start once, and down again."""

    name = "up"

    def next(self, state):
        below = [s for s in self.sigmas if s < state.sigma]
        if not below and not any(b > a for a, b in pairwise(state.visited)):
            return Renoise(self.sigmas[0])
        return Step(below[0]) if below else None


class Ahead(Sampler):
    """Hands on the evaluation at the end of its step."""

    name = "ahead"

    def step(self, c):
        denoised = c.denoise(c.x, c.sigma)
        x = c.transfer(c.x, denoised, c.sigma_next)
        return StepResult(x, denoised, ahead=c.denoise(x, c.sigma_next), memory={"mine": 1.0})


class Drawing(Sampler):
    """Euler that keeps what it drew and what it remembered."""

    name, stochastic = "drawing", True

    def __init__(self):
        super().__init__()
        self.drawn, self.memory = [], []

    def step(self, c):
        self.drawn.append(c.brownian())
        self.memory.append(dict(c.memory))
        denoised = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, denoised, c.sigma_next), denoised)


def test_an_evaluation_of_the_old_model_is_not_taken_for_the_new_one():
    phases = [
        FunctionPhase(Mixture(), Ahead(), GRID[:3], field="a"),
        FunctionPhase(Constant(2.0), Ahead(), GRID[2:4], field="b", history="carry"),
    ]
    first = trace_phases(phases[:1], X)
    assert trace_phases(phases, X).x.equal(trace_phases(phases[1:], first.x).x)


def test_each_phase_counts_what_it_visited_itself():
    phases = [FunctionPhase(Mixture(), "euler", s, strategy=Up) for s in (GRID[:3], GRID[2:])]
    up = [r.phase for r in trace_phases(phases, X) if r.sampler == "renoise"]
    assert up == ["phases[0]", "phases[1]"]


def test_a_sampler_does_not_see_the_memory_of_another():
    drawing = Drawing()
    phases = [
        FunctionPhase(Mixture(), Ahead(), GRID[:3], field="a"),
        FunctionPhase(Mixture(), drawing, GRID[2:], field="a"),
    ]
    trace_phases(phases, X)
    assert drawing.memory == [{}]


def test_a_bad_prediction_at_a_boundary_is_placed_after_the_steps_before_it():
    broken = Constant(float("nan"))
    phases = [
        FunctionPhase(Mixture(), "euler", GRID[:3], field="a"),
        FunctionPhase(broken, "euler", GRID[2:], field="b", history="auto", name="low"),
    ]
    with pytest.raises(NumericsError, match=r"phase low, step 2, sigma 0\.5"):
        trace_phases(phases, X)


def test_a_prediction_looked_at_late_still_stops_the_run(monkeypatch):
    """As on a GPU: the answer for the last evaluation is read at the end of the run."""
    watch = lambda self, d, where: setattr(self, "_pending", (extremes(d), None, where))  # noqa: E731
    monkeypatch.setattr(Engine, "_watch", watch)
    with pytest.raises(NumericsError, match="step 3"):
        trace_phases(
            [FunctionPhase(lambda x, s: x * (1 if s > 0.3 else torch.nan), "euler", GRID)], X
        )


def test_predictions_become_the_states_dtype():
    seen = []
    phase = FunctionPhase(lambda x, s: x.double() * 0.5, "euler", GRID)
    trace_phases([phase], X, observers=[lambda _, __, d: seen.append(d.dtype)])
    assert seen == [torch.float32] * 4


def test_a_brownian_path_is_a_new_one_after_going_up():
    drawing = Drawing()
    trace_phases([FunctionPhase(Mixture(), drawing, GRID[:3], strategy=Up)], X, seed=3)
    noise = NoiseSource(3)
    for i, (a, b) in enumerate(2 * [(1.0, 0.8), (0.8, 0.5)]):
        assert drawing.drawn[i].equal(noise.brownian(X, a, b, visit=i // 2))


def test_a_brownian_path_on_ve_is_that_of_the_flow_it_lifts():
    drawing = Drawing()
    trace_phases([FunctionPhase(Mixture(), drawing, (9.0, 1.0, 0.0))], X * 9, path="ve", seed=3)
    assert drawing.drawn[0].equal(NoiseSource(3).brownian(X, 0.9, 0.5))


def test_a_brownian_increment_voids_the_start():
    kept = []
    phase = FunctionPhase(Mixture(), Drawing(), GRID)
    trace_phases([phase], X, checkpoint=lambda state, _: kept.append(state.past[0].start is None))
    assert kept == [True, True, True, False]


@pytest.mark.parametrize(("new", "note"), [(1.0, "carry, rho 0"), (3.0, "reset, rho inf")])
def test_auto_where_the_old_model_stood_still(new, note):
    phases = [
        FunctionPhase(Constant(1.0), "euler", GRID[:3], field="a"),
        FunctionPhase(Constant(new), "euler", GRID[2:], field="b", history="auto"),
    ]
    assert trace_phases(phases, X)[2].note == f"auto: {note}"


def test_a_sampler_that_ends_at_nan_is_named_and_not_the_model():
    class Broken(Sampler):
        name = "broken"

        def step(self, c):
            d = c.denoise(c.x, c.sigma)
            return StepResult(c.transfer(c.x, d, c.sigma_next), d)

        def finish(self, c, denoised):
            return denoised / (denoised * 0.0)

    with pytest.raises(NumericsError, match=r"phase end: sampler 'broken' ended at NaN"):
        trace_phases([FunctionPhase(Constant(), Broken(), GRID, name="end")], X)
