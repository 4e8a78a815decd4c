"""History policies that raise or give no state, and what fails while one asks, are told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gatekit import FunctionPhase, HistoryPolicy, PluginError, Sampler, StepResult, functional
from gatekit.functional import trace_phases
from gatekit.testing import Mixture

GRID = (1.0, 0.8, 0.5, 0.2, 0.0)
X = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))


class Plain(Sampler):
    """Euler's method."""

    name, order = "plain", 1

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, d, c.sigma_next), d)


class FaultyPolicy(HistoryPolicy):
    """Raises, or returns no state, at one side of a boundary."""

    name = "faulty_policy"

    def __init__(self, side, gives=None):
        super().__init__()
        self.side, self.gives = side, gives

    def _at(self, side, state):
        if side != self.side:
            return state
        if self.gives is None:
            raise KeyError("past")
        return self.gives(state)

    def leave(self, state, denoise, correct):
        return self._at("leave", state)

    def enter(self, state, denoise):
        return self._at("enter", state)


def crossed(policy, first="euler"):
    phases = [
        FunctionPhase(Mixture(), first, GRID[:3], name="high", field="a"),
        FunctionPhase(Mixture(), "euler", GRID[2:], name="low", field="b", history=policy),
    ]
    return trace_phases(phases, X)


@pytest.mark.parametrize("side", ["leave", "enter"])
def test_a_history_policy_that_raises_is_named(side):
    with pytest.raises(
        PluginError, match=r"'faulty_policy' of .*test_blame_policies raised KeyError"
    ) as end:
        crossed(FaultyPolicy(side))
    assert "start of phase low" in str(end.value) and isinstance(end.value.__cause__, KeyError)


@pytest.mark.parametrize("side", ["leave", "enter"])
@pytest.mark.parametrize(
    ("gives", "what"),
    [
        (lambda state: state.x, "got 'Tensor'"),
        (lambda state: replace(state, x=state.x[:, :2]), "(1, 2)"),
        (lambda state: replace(state, x=state.x.double()), "float64"),
        (lambda state: replace(state, x=None), "got 'NoneType'"),
    ],
)
def test_a_history_policy_that_gives_no_such_state_is_named(side, gives, what):
    said = "'faulty_policy' must return the state it was given"
    with pytest.raises(PluginError, match=said) as end:
        crossed(FaultyPolicy(side, gives))
    assert what in str(end.value)


def test_a_sampler_that_cannot_correct_is_not_taken_for_the_policy():
    class NoEnd(Plain):
        name = "no_end"

        def correct(self, c, denoised):
            raise ValueError("no")

    with pytest.raises(PluginError, match=r"sampler 'no_end' .* raised ValueError") as end:
        crossed("close", NoEnd())
    assert "phase high, step 2" in str(end.value)


def test_a_sampler_that_corrects_to_something_else_is_not_taken_for_the_policy():
    class Half(Plain):
        name = "half"

        def correct(self, c, denoised):
            return c.x[:, :3]

    with pytest.raises(PluginError, match=r"correct\(\) of sampler 'half' must return x") as end:
        crossed("close", Half())
    assert "phase high, sigma 0.5" in str(end.value) and "(1, 3)" in str(end.value)


@pytest.mark.parametrize("policy", ["auto", "close"])
def test_a_model_that_cannot_be_loaded_is_not_taken_for_the_policy(policy, monkeypatch):
    """These ask for the entering model first, so it is loaded while their code runs."""

    def missing():
        raise OSError("no such disk")

    made = functional.make_stage

    def stage(phase, index, path):
        found = made(phase, index, path)
        return replace(found, open=missing) if phase.name == "low" else found

    monkeypatch.setattr(functional, "make_stage", stage)
    with pytest.raises(OSError, match="no such disk"):
        crossed(policy)
