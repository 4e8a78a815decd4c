import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekit import InputError, RectifiedFlow, ScheduleError, SigmaGrid, VarianceExploding
from gatekit.sigmas import as_sigmas, boundary_to_sigma, partition

GRID = tuple(5 * u / (1 + 4 * u) for u in (1 - i / 20 for i in range(21)))


class Even(SigmaGrid):
    name = "even"

    def points(self, start, end, steps):
        return [start + (end - start) * i / steps for i in range(steps + 1)]


class Broken(Even):
    name = "broken"

    def points(self, start, end, steps):
        return [start] * (steps + 1)


def test_a_grid_runs_from_its_start_to_exactly_zero():
    assert Even()(4) == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert Even().stretch(0.7, 0.3, 2) == (0.7, pytest.approx(0.5), 0.3)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Even()(0), "at least one step"),
        (lambda: Even().stretch(0.3, 0.5, 4), "no room"),
        (lambda: Broken()(4), "cannot place 4 steps"),
    ],
)
def test_impossible_stretches(call, text):
    with pytest.raises(ScheduleError, match=text):
        call()


@given(untils=st.lists(st.floats(0.01, 0.99), max_size=3, unique=True))
def test_partition_covers_the_grid_once(untils):
    bounds = [*sorted(untils, reverse=True), None]
    try:
        parts = partition(GRID, bounds)
    except ScheduleError:
        starts = GRID[:-1]
        owners = [sum(s < b - 1e-6 for b in bounds[:-1]) for s in starts]
        assert set(owners) != set(range(len(bounds)))
        return
    steps = [pair for part in parts for pair in pairwise(part)]
    assert steps == list(pairwise(GRID))
    for part, bound in zip(parts, bounds, strict=True):
        assert all(s >= (bound or 0.0) - 1e-6 for s in part[:-1])


@pytest.mark.parametrize(("boundary", "shift", "high"), [(0.875, 12.0, 26), (0.9, 5.0, 15)])
def test_wans_rule_gives_wans_numbers_of_high_noise_steps(boundary, shift, high):
    """40 steps: 26 for T2V, 15 for I2V, as in Wan's own code."""
    us = [0.999 * (1 - i / 40) for i in range(41)]
    grid = [shift * u / (1 + (shift - 1) * u) for u in us]
    assert len(partition(grid, [boundary, None])[0]) - 1 == high


def test_a_step_at_the_boundary_belongs_above_it():
    assert partition((1.0, 0.5, 0.2, 0.0), [0.5, None]) == ((1.0, 0.5, 0.2), (0.2, 0.0))
    assert partition((1.0, 0.4999995, 0.2, 0.0), [0.5, None])[1] == (0.2, 0.0)


def test_partition_errors_name_phase_and_nearest_sigma():
    with pytest.raises(ScheduleError, match=r"mid is left without a step.*sigma 0\.5"):
        partition((1.0, 0.5, 0.0), [0.9, 0.6, None], ["top", "mid", "low"])
    with pytest.raises(ScheduleError, match="does not lie below"):
        partition(GRID, [0.5, 0.7, None])
    with pytest.raises(ScheduleError, match="must reach sigma 0"):
        partition(GRID, [0.5])


def test_five_forms_of_a_boundary():
    assert boundary_to_sigma("sigma", 0.875) == 0.875
    assert boundary_to_sigma("timestep", 900) == 0.9
    assert boundary_to_sigma("log_snr", 0.0) == pytest.approx(0.5)
    assert boundary_to_sigma("log_snr", 2 * RectifiedFlow().lam(0.9)) == pytest.approx(0.9)
    assert boundary_to_sigma("log_snr", -math.log(9), path=VarianceExploding()) == pytest.approx(3)
    assert boundary_to_sigma("step", 5, sigmas=GRID) == GRID[4]
    assert boundary_to_sigma("fraction", 0.25, sigmas=GRID) == GRID[4]


@given(step=st.integers(1, 19))
def test_a_boundary_by_step_number_takes_that_many_steps(step):
    until = boundary_to_sigma("step", step, sigmas=GRID)
    assert len(partition(GRID, [until, None])[0]) - 1 == step


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("sigma", 1.2),
        ("timestep", -1),
        ("step", 0),
        ("step", 20),
        ("step", 2.5),
        ("fraction", 1.0),
        ("fraction", 0.01),
        ("steps", 3),
    ],
)
def test_impossible_boundaries(kind, value):
    with pytest.raises(ScheduleError):
        boundary_to_sigma(kind, value, sigmas=GRID)


def test_step_boundaries_need_one_grid():
    with pytest.raises(ScheduleError, match="one grid for the whole run"):
        boundary_to_sigma("step", 3)


@pytest.mark.parametrize(
    "values", [[1.0], [0.5, 0.5, 0.0], [0.2, 0.5], [1.0, -0.1], [float("nan"), 0.0], [1.5, 0.0]]
)
def test_bad_sigmas(values):
    with pytest.raises(InputError):
        as_sigmas(values, RectifiedFlow())


def test_sigmas_become_floats():
    import torch

    assert as_sigmas(torch.tensor([1.0, 0.5, 0.0])) == (1.0, 0.5, 0.0)
    with pytest.raises(InputError):
        as_sigmas([math.inf, 1.0], VarianceExploding())
