"""Plugins that raise: named, and no one else is taken for them."""

from __future__ import annotations

import pluggy
import pytest
import torch

from gatekit import (
    Cancelled,
    FunctionPhase,
    GatekitError,
    NumericsError,
    Phase,
    PluginError,
    Sampler,
    Step,
    StepResult,
    hookimpl,
    hooks,
)
from gatekit.functional import trace_phases
from gatekit.testing import Mixture

GRID = (1.0, 0.8, 0.5, 0.2, 0.0)
X = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))


def trace(sampler="euler", denoise=None, **options):
    phase = FunctionPhase(denoise or Mixture(), sampler, GRID, name="low")
    return trace_phases([phase], X, **options)


class Faulty(Sampler):
    """Raises at one step."""

    name, order = "faulty", 1
    error: Exception = ValueError("a bug\nin two lines")

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        if c.sigma == 0.5:
            raise self.error
        return StepResult(c.transfer(c.x, d, c.sigma_next), d)


class FaultyAtTheEnd(Faulty):
    error = Exception()

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, d, c.sigma_next), d)

    def finish(self, c, denoised):
        raise KeyError("x0")


class FaultyLoop(FaultyAtTheEnd):
    """Owns its loop, and fails after one step."""

    def integrate(self, c):
        d = c.denoise(c.x, c.sigma)
        yield 0.8, StepResult(c.transfer(c.x, d, 0.8), d)
        raise IndexError("no more")


def relay(**plugins):
    manager = pluggy.PluginManager("gatekit")
    manager.add_hookspecs(hooks)
    for name, plugin in plugins.items():
        manager.register(plugin, name)
    return manager.hook


def test_a_sampler_that_raises_is_named_with_its_place_and_cause():
    with pytest.raises(PluginError) as caught:
        trace(Faulty())
    text = str(caught.value)
    assert text.startswith("phase low, step 2, sigma 0.5: sampler 'faulty'")
    assert f"of {__name__} raised ValueError: a bug; use another sampler" in text
    assert caught.value.__cause__ is Faulty.error


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (FaultyAtTheEnd, r"step 3, sigma 0\.2: sampler 'faulty' .* KeyError"),
        (FaultyLoop, r"from sigma 1: sampler 'faulty' .* IndexError: no more"),
    ],
)
def test_finish_and_loops_are_named_too(sampler, said):
    with pytest.raises(PluginError, match=said):
        trace(sampler())


def test_a_strategy_that_raises_is_named():
    class Lost(Phase):
        name = "lost"

        def next(self, state):
            if state.sigma < 0.6:
                raise ZeroDivisionError
            return Step(0.5 if state.sigma < 1 else 0.8)

    phase = FunctionPhase(Mixture(), "euler", GRID, name="low", strategy=Lost)
    with pytest.raises(PluginError, match=r"step 2, sigma 0\.5: strategy 'lost' .*ZeroDivision"):
        trace_phases([phase], X)


@pytest.mark.usefixtures("k_diffusion")
@pytest.mark.parametrize("name", ["heun", "k_diffusion/dpm_adaptive", "rk45"])
def test_what_the_model_raises_is_not_the_samplers_fault(name):
    def denoise(x, sigma):
        if sigma < 0.6:
            raise ValueError("the model's")
        return Mixture()(x, sigma)

    with pytest.raises(ValueError, match="the model's"):
        trace(name, denoise)


def test_memory_that_a_sampler_runs_out_of_is_no_bug():
    sampler = Faulty()
    sampler.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(GatekitError, match="sampler 'faulty' ran out of memory") as caught:
        trace(sampler)
    assert not isinstance(caught.value, PluginError)


def test_what_a_sampler_means_is_passed_on():
    sampler = Faulty()
    sampler.error = NumericsError("I gave up", remedy="smaller steps")
    with pytest.raises(NumericsError, match="I gave up"):
        trace(sampler)


# -- observers


class Watcher:
    def __init__(self, fails=None):
        self.steps, self.fails = [], fails

    @hookimpl
    def gatekit_step_end(self, record):
        self.steps.append(record.step)
        if self.fails is not None and record.step == 1:
            raise self.fails


def test_an_observer_that_raises_is_named_and_disabled_and_the_others_go_on(caplog):
    bad, good = Watcher(RuntimeError("display lost")), Watcher()
    found = trace(hooks=relay(bad=bad, good=good))
    assert found.x.equal(trace().x)
    assert (bad.steps, good.steps) == ([0, 1], [0, 1, 2, 3])
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warnings == [
        "plugin bad failed in gatekit_step_end (RuntimeError: display lost); "
        "the run goes on, and tells it nothing more"
    ]


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


@pytest.mark.parametrize("failure", [MuteError(), SystemExit(3)], ids=["mute", "exit"])
def test_an_observer_that_raises_what_nobody_expects(caplog, failure):
    bad, good = Watcher(failure), Watcher()
    found = trace(hooks=relay(bad=bad, good=good))
    assert found.x.equal(trace().x)
    assert (bad.steps, good.steps) == ([0, 1], [0, 1, 2, 3])
    assert f"plugin bad failed in gatekit_step_end ({type(failure).__name__}" in caplog.text


def test_an_observer_may_stop_the_run():
    with pytest.raises(Cancelled):
        trace(hooks=relay(stop=Watcher(Cancelled())))


def test_a_boundary_hook_that_raises_ends_the_run_and_is_named():
    class Cross:
        @hookimpl
        def gatekit_cross_boundary(self, state):
            raise RuntimeError("torn")

    phases = [
        FunctionPhase(Mixture(), "euler", GRID[:3], field="a", name="high"),
        FunctionPhase(Mixture(), "euler", GRID[2:], field="b", name="low"),
    ]
    with pytest.raises(PluginError, match="plugin cross failed in gatekit_cross_boundary: Runtime"):
        trace_phases(phases, X, hooks=relay(cross=Cross()))


def test_the_plugin_registered_last_answers_first():
    class Cross:
        def __init__(self, name, answer):
            self.name, self.answer = name, answer

        @hookimpl
        def gatekit_cross_boundary(self, state, leaving, entering):
            asked.append((self.name, leaving, entering))
            return state if self.answer else None

    asked = []
    phases = [
        FunctionPhase(Mixture(), "euler", GRID[:3], field="a", name="high"),
        FunctionPhase(Mixture(), "euler", GRID[2:], field="b", name="low"),
    ]
    order = relay(a=Cross("a", True), b=Cross("b", True), c=Cross("c", False))
    trace_phases(phases, X, hooks=order)
    assert asked == [("c", "high", "low"), ("b", "high", "low")]


# -- samplers that cannot go on in the midst of a stretch


@pytest.mark.usefixtures("k_diffusion")
def test_a_loop_that_keeps_more_than_it_tells_is_saved_at_the_start_of_its_phase():
    kept = []
    phases = [
        FunctionPhase(Mixture(), "dpmpp_2m", GRID[:2], field="a", name="high"),
        FunctionPhase(Mixture(), "k_diffusion/dpm_adaptive", GRID[1:4], field="a", name="mid"),
        FunctionPhase(Mixture(), "dpmpp_2m", GRID[3:], field="a", name="low"),
    ]
    whole = trace_phases(phases, X, checkpoint=lambda state, record: kept.append(state))
    places = [(state.phase, state.sigma) for state in kept]
    middle = [place for place in places if place[0] == 1]
    assert len(middle) > 1, "it takes several steps"
    assert set(middle[:-1]) == {(1, 0.8)} and middle[-1] == (1, 0.2)
    for state in kept:
        assert trace_phases(phases, X, resume_from=state).x.equal(whole.x)
