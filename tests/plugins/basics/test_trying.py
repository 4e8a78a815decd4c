"""Grids by numbers, and grids chosen by running them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import gatekit
from gatekit.testing import Mixture
from gatekit_basics.fit_runs import chosen
from gatekit_basics.placing import Places
from gatekit_basics.travel import Travel, fine_grid, mean_of
from gatekit_basics.trying import Compass, Trial, error_of, tried


def shifted(steps, shift=5.0):
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - i / steps for i in range(steps + 1))]


BASE = shifted(20)
number = st.floats(-1.5, 1.5)


def test_zeros_name_the_grid_itself():
    assert Places(BASE, (0.875,)).grid([0.0] * 5) == BASE
    assert len(Places(BASE, (0.96, 0.875)).moves) == 7 and len(Places(BASE, ()).moves) == 3


@given(number, number, number, number)
def test_every_grid_runs_from_the_first_sigma_to_0(last, shift, low, high):
    grid = Places(BASE, (0.875,)).grid([shift / 5, shift, last, high, low])
    if grid is None:
        return
    assert len(grid) == 21 and (grid[0], grid[-1]) == (1.0, 0.0)
    assert all(a - b > 1e-4 for a, b in pairwise(grid))
    assert grid[-2] == pytest.approx(BASE[-2] * math.exp(last), rel=1e-3)


@given(st.floats(-1.0, 0.5), number, st.integers(-2, 2))
def test_only_its_own_number_moves_a_switch(last, low, shift):
    """As many steps above it as were there, and as many more as the number says."""
    grid = Places(BASE, (0.875,)).grid([0.0, float(shift), last, 0.0, low])
    assert grid is not None
    assert sum(s > 0.875 for s in grid) == sum(s > 0.875 for s in BASE) + shift


def test_factors_move_steps_within_their_side_of_a_switch():
    places = Places(BASE, (0.875,))
    low, high = (places.grid(numbers) for numbers in ([0.0, 0, 0, 0, 0.7], [0.0, 0, 0, 0.7, 0]))
    switch = next(i for i, s in enumerate(BASE) if s < 0.875)
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in zip(low[:8], BASE, strict=False))
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in zip(high[-8:], BASE[-8:], strict=True))
    assert all(a < b for a, b in zip(low[switch + 1 : -2], BASE[switch + 1 : -2], strict=True))
    assert all(a > b for a, b in zip(high[1:7], BASE[1:7], strict=True))


@pytest.mark.parametrize("numbers", [[0, 0, 4.0, 0, 0], [0, 30.0, 0, 0, 0], [0, -30.0, 0, 0, 0]])
def test_grids_that_cannot_be_are_none(numbers):
    assert Places(BASE, (0.875,)).grid([float(v) for v in numbers]) is None


def test_the_error_is_between_geometric_mean_and_mean_over_prompts():
    truth = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    ends = truth + torch.tensor([[0.5, 0.0], [0.0, 0.004]])
    assert error_of(ends, truth) == pytest.approx(
        (math.sqrt(0.1) + math.sqrt(0.004)) ** 2 / 4, rel=1e-4
    )
    assert math.sqrt(0.1 * 0.004) < error_of(ends, truth) < (0.1 + 0.004) / 2
    assert error_of(None, truth) == error_of(ends * math.nan, truth) == math.inf


def test_no_more_runs_than_allowed_and_none_twice():
    seen = []

    def ends(grid):
        seen.append(tuple(grid))
        return torch.ones(1, 2) * (1 + len(seen) / 100)

    found = tried([BASE], [BASE], (0.875,), ends, torch.ones(1, 2), 9)
    assert len(seen) == len(set(seen)) == len(found) == 9
    assert found[0] == (pytest.approx(0.01, rel=1e-4), pytest.approx(BASE, abs=1e-6))
    trial = Trial(ends, torch.ones(1, 2), 1)
    trial(BASE)
    assert trial(BASE) < math.inf and trial(shifted(12)) == math.inf and len(seen) == 10


def test_the_search_finds_a_grid_of_its_family():
    """The end is nearest where the grid is: 2.1 steps above the switch, half the last sigma."""
    places = Places(BASE, (0.875,))
    wanted = torch.tensor(places.grid([0.1, 2.0, math.log(0.5), 0.0, 0.0]))
    trial = Trial(lambda grid: torch.tensor([grid]), wanted[None], 60)
    first = trial(BASE)
    Compass(trial, places).search()
    assert len(trial.tried) <= 60 and trial.best[0] < 0.1 * first


def test_a_search_goes_on_where_it_was_and_runs_nothing_again():
    places, ends = Places(BASE, (0.875,)), lambda grid: torch.tensor([grid])
    wanted = ends(places.grid([0.1, 1.0, -0.4, 0.2, 0.3]))
    whole, parts = Trial(ends, wanted, 30), Trial(ends, wanted, 30)
    Compass(whole, places).search()
    compass = Compass(parts, places)
    for leave in (23, 11, 0):
        compass.search(leave)
        assert parts.left == leave
    assert len({tuple(grid) for _, grid in parts.tried}) == 30
    assert parts.best[0] < 0.3 * parts.tried[0][0] and whole.best[0] < 0.3 * whole.tried[0][0]


def test_the_search_goes_on_from_a_fitted_grid_that_is_better():
    other = Places(BASE, (0.875,)).grid([0.0, 4.0, 0.0, 0.0, 0.0])
    wanted = torch.tensor(Places(other, (0.875,)).grid([0.1, 0.0, 0.0, 0.0, 0.0]))[None]
    found = tried([BASE], [other], (0.875,), lambda g: torch.tensor([g]), wanted, 12)
    first = error_of(torch.tensor([other]), wanted)
    assert found[0][0] < 0.6 * first < 0.6 * error_of(torch.tensor([BASE]), wanted)


def test_a_grid_where_every_run_fails_is_still_the_first():
    found = tried([BASE], [], (), lambda grid: None, torch.ones(1, 2), 3)
    assert found[0][0] == math.inf and found[0][1] == pytest.approx(BASE, abs=1e-6)


def test_on_a_mixture_the_chosen_grid_is_no_worse_than_any_that_was_tried():
    """And better than what it began with, on other noise too."""
    field = Mixture()

    def noise(seed):
        made = torch.Generator().manual_seed(seed)
        return torch.randn(16, 4, 8, generator=made, dtype=torch.float64)

    def run(grid, seed):
        return gatekit.sample(field, noise(seed), grid, sampler="polish").flatten(1)

    travel = Travel()
    grid = fine_grid(1.0, 160)
    gatekit.sample(field, noise(0), grid, sampler="structure", observers=[travel])
    fine = mean_of([travel], ())
    found = chosen(fine, 1.0, 12, lambda g: run(g, 0).float(), 20)
    errors = {tuple(g): error_of(run(g, 0), fine.ends) for _, g in found}
    assert len(found) == 20 and found[0][0] == min(error for error, _ in found)
    assert errors[tuple(found[0][1])] == pytest.approx(min(errors.values()), rel=1e-3)
    other = run(fine_grid(1.0, 160), 1)
    mine, wan = (error_of(run(g, 1), other) for g in (found[0][1], shifted(12)))
    assert mine < 0.7 * wan
