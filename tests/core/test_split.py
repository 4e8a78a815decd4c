"""Cutting a run anywhere, any number of times, changes no bit."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatekit
from gatekit import FunctionPhase, SamplerParams, State, StepResult
from gatekit.functional import trace_phases
from gatekit.testing import Mixture

FIELD = Mixture()
X = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))


class Noisy(gatekit.Sampler):
    """Ancestral Euler with memory, a Brownian part, and everything a cut could upset."""

    name, stochastic, history = "noisy", True, 1

    def step(self, c):
        denoised = c.denoise(c.x, c.sigma)
        down = c.sigma_down(0.5)
        x = c.renoise(c.transfer(c.x, denoised, down), down)
        x = x + 0.01 * c.brownian() + 0.01 * c.memory.get("count", 0.0)
        if c.past:
            x = x + 0.01 * c.past[0].denoised
        return StepResult(x, denoised, memory={"count": c.memory.get("count", 0.0) + c.steps_left})


class Ahead(gatekit.Sampler):
    """First same as last: hands on the evaluation at the end of its step."""

    name = "ahead"
    Params = SamplerParams

    def step(self, c):
        denoised = c.denoise(c.x, c.sigma)
        x = c.transfer(c.x, denoised, c.sigma_next)
        return StepResult(x, denoised, ahead=c.denoise(x, c.sigma_next))


SAMPLERS = st.sampled_from(["euler", "heun", "dpmpp_2m", "unipc", Noisy(), Ahead()])
# A Brownian path knows no two places nearer than 2^-20.
SIGMAS = st.integers(10_000, 990_000).map(lambda millionth: millionth / 1e6)
GRIDS = st.lists(SIGMAS, min_size=2, max_size=8, unique=True)


@settings(max_examples=60, deadline=None)
@given(sampler=SAMPLERS, inner=GRIDS, data=st.data(), top=st.booleans())
def test_cuts_change_no_bit(sampler, inner, data, top):
    grid = [*([1.0] if top else []), *sorted(inner, reverse=True), 0.0]
    cuts = data.draw(st.sets(st.integers(1, len(grid) - 2), max_size=3))
    edges = [0, *sorted(cuts), len(grid) - 1]
    history = data.draw(st.sampled_from(["carry", "auto", "close"]))
    parts = [
        FunctionPhase(FIELD, sampler, grid[a : b + 1], field="one", history=history)
        for a, b in pairwise(edges)
    ]
    whole = trace_phases([FunctionPhase(FIELD, sampler, grid, field="one")], X, seed=4)
    cut = trace_phases(parts, X, seed=4)
    assert cut.x.equal(whole.x)
    assert cut.nfe == whole.nfe and cut.sigmas == whole.sigmas


@settings(max_examples=25, deadline=None)
@given(
    sampler=SAMPLERS, stop=st.integers(0, 7), history=st.sampled_from(["auto", "close", "reset"])
)
def test_resuming_changes_no_bit_over_a_boundary(sampler, stop, history, tmp_path_factory):
    grid = (1.0, 0.9, 0.8, 0.7, 0.5, 0.4, 0.2, 0.1, 0.0)
    low = Mixture(means=(-1.0, 0.0, 2.0))
    phases = [
        FunctionPhase(FIELD, sampler, grid[:5], field="high"),
        FunctionPhase(low, sampler, grid[4:], field="low", history=history),
    ]
    kept = []
    whole = trace_phases(phases, X, checkpoint=lambda state, _: kept.append(state))
    file = tmp_path_factory.mktemp("s") / "state"
    kept[stop].save(file)
    resumed = trace_phases(phases, X, resume_from=State.load(file))
    assert resumed.x.equal(whole.x)
    assert [r.sigma for r in resumed] == [r.sigma for r in whole][stop + 1 :]
