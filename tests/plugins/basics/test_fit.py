import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import gatekit
from gatekit.testing import Gaussian
from gatekit_basics.curvature import theta
from gatekit_basics.fitting import fit, followed, predicted_error
from gatekit_basics.travel import Fine, Travel, fine_grid, load, looked_at, mean_of, save
from gatekit_basics.travelled import Travelled, _weights

X = torch.randn(1, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def shifted(steps, shift=5.0):
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - i / steps for i in range(steps + 1))]


def path_of(value, steps=120, boundaries=()):
    """A trajectory whose predictions are a function of sigma alone."""
    sigmas = fine_grid(1.0, steps)[:-1]
    rows = torch.tensor([value(s) for s in sigmas], dtype=torch.float64)
    gram = (rows @ rows.T / rows[-1].square().sum()).numpy()
    return Travelled(tuple(sigmas), gram, boundaries)


def error_of(value, grid, sampler="polish"):
    """What a real run over ``grid`` errs by, relative to the end, where D ignores x."""
    end = gatekit.sample(
        lambda x, s: torch.tensor([value(s)], dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.float64),
        grid,
        sampler=sampler,
        settle=False,
    )
    truth = torch.tensor(value(5e-5), dtype=torch.float64)
    return float((end[0] - truth).norm() / truth.norm())


def test_the_fine_grid_is_short_at_both_ends():
    grid = fine_grid(1.0, 120)
    steps = [a - b for a, b in pairwise(grid)]
    assert (grid[0], grid[-1], len(grid)) == (1.0, 0.0, 121)
    assert min(steps) > 0 and max(steps) < 0.03
    assert steps[0] < 1e-3 and steps[-1] < 1e-3
    assert fine_grid(0.7, 40)[0] == 0.7


@pytest.mark.parametrize("boundaries", [(0.875,), (0.96, 0.875), (0.99, 0.3, 0.02)])
def test_the_fine_grid_meets_switches_with_a_node_right_below(boundaries):
    grid = fine_grid(1.0, 120, (1.0, *boundaries, 0.0))
    assert len(grid) == 121 and all(a > b for a, b in pairwise(grid))
    for boundary in boundaries:
        below = grid[grid.index(boundary) + 1]
        assert 0 < boundary - below < 3e-4
    assert min(a - b for a, b in pairwise(grid)) > 5e-6


def test_sums_of_the_trajectory_are_its_predictions_and_integrals():
    """D = (s, 1 - s): D is reproduced, and z = integral of D dy is known."""
    travelled = path_of(lambda s: (s, 1 - s))
    rows = np.array([(s, 1 - s) for s in travelled.sigmas])
    for sigma in (0.999, 0.9, 0.5, 0.0317):
        assert travelled.at(sigma, 0) @ rows == pytest.approx([sigma, 1 - sigma], abs=1e-6)
        # dy = -ds/s^2: integrals of s and 1 - s from 1 down to sigma.
        log = -math.log(sigma)
        wanted = [log, (1 / sigma - 1) - log]
        assert travelled.integral(sigma) @ rows == pytest.approx(wanted, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("nodes", [(0.8,), (0.8, 0.9), (0.6, 0.8, 0.9), (0.99, 1.0)])
def test_weights_are_those_of_the_samplers(nodes):
    above, below = (nodes[0], nodes[0] - 0.15) if len(nodes) < 3 else (nodes[1], nodes[0])
    wanted = gatekit.multistep_weights(gatekit.RectifiedFlow(), "theta", above, below, nodes)
    width = (1 - below) / below - (1 - above) / above
    assert _weights(nodes, above, below) == pytest.approx([width * w for w in wanted], rel=1e-9)


def test_the_error_is_that_of_a_run_where_the_model_ignores_its_state(monkeypatch):
    """D a function of sigma: the prediction is the error itself, but for ``settle``."""
    monkeypatch.setattr("gatekit_basics.fitting.ANSWERS", (0.0,))
    monkeypatch.setattr("gatekit_basics.fitting.SETTLED", 0.0)

    def value(s):
        return (1 + 0.3 * math.sin(6 * theta(s)), 0.5 - 0.2 * s**3)

    travelled = path_of(value, 400)
    for grid in (shifted(8), shifted(20), [*shifted(12)[:-1], 0.02, 0.0]):
        assert predicted_error(travelled, grid) == pytest.approx(error_of(value, grid), rel=0.02)


def test_a_jump_costs_least_in_the_middle_of_a_step():
    def value(s):
        return (1.0, 0.0) if s >= 0.5 else (0.0, 1.0)

    travelled = path_of(value, boundaries=(0.5,))
    near = [predicted_error(travelled, [1, 0.9, 0.8, 0.7, 0.6 - d, 0.4 - d, 0.3 - d, 0.2, 0.1, 0])
            for d in (-0.098, -0.05, 0.0, 0.05, 0.095)]  # fmt: skip
    assert min(near) == min(near[1:4])


def test_a_fitted_grid_is_better_on_another_run():
    """Gaussian with a closed flow, another noise than that measured on; and what was promised."""
    field = Gaussian(mean=1.5, std=0.05)
    travel = Travel()
    gatekit.sample(field, X, fine_grid(1.0, 120), sampler="structure", observers=[travel])
    measured = mean_of([travel], ())
    travelled, profile = measured.travelled, measured.profile
    assert 0.5 < max(density for _, density in profile) <= 1.0
    other = torch.randn(4, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = field.flow(other, 1.0, 0.0)
    grid = fit(travelled, shifted(16), evaluations=600)
    assert (grid[0], grid[-1], len(grid)) == (1.0, 0.0, 17)
    assert all(a > b for a, b in pairwise(grid))
    errors = [
        float((gatekit.sample(field, other, g, sampler="polish") - truth).norm() / truth.norm())
        for g in (shifted(16), grid)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert predicted_error(travelled, grid) < 0.5 * predicted_error(travelled, shifted(16))


def test_the_answer_of_a_model_is_within_what_the_state_shows():
    assert followed(1.0) == 0.0
    shares = [followed(s) * (1 - s) for s in (0.999, 0.99, 0.97, 0.9, 0.5, 0.01)]
    assert all(a <= b for a, b in pairwise(shares)) and shares[-1] == 0.9
    assert followed(0.99) == pytest.approx(0.45 / 0.01, rel=0.01)


def test_the_end_is_kept_as_it_is_looked_at(monkeypatch):
    monkeypatch.setattr("gatekit_basics.travel.MOST", 100)
    travel, x = Travel(), torch.randn(2, 3, 8, 10)
    end = gatekit.sample(Gaussian(), x, shifted(5), sampler="euler", observers=[travel])
    assert travel.end.shape == (2, 100) and torch.equal(travel.end, looked_at(end))
    assert set(travel.end[0].tolist()) < set(end[0].flatten().tolist())


def test_large_latents_are_sampled(monkeypatch):
    monkeypatch.setattr("gatekit_basics.travel.MOST", 1000)
    x = torch.randn(1, 20_000, generator=torch.Generator().manual_seed(0))
    whole, part = Travel(), Travel()
    for travel, most in ((whole, 10**9), (part, 1000)):
        monkeypatch.setattr("gatekit_basics.travel.MOST", most)
        gatekit.sample(Gaussian(), x, fine_grid(1.0, 40), sampler="euler", observers=[travel])
    a, b = (predicted_error(t.travelled(()), shifted(10)) for t in (whole, part))
    assert a == pytest.approx(b, rel=0.1) and a != b


def test_a_measurement_is_kept(tmp_path):
    file = tmp_path / "m.safetensors"
    travelled = path_of(lambda s: (s, 1.0), 40, (0.5,))
    fine = Fine(travelled, [[1.0, 1.0], [0.1, 0.5]], torch.rand(2, 3), ({"prompt": "x"},))
    save(file, fine, ["a"])
    found = load(file, ["a"])
    assert found.travelled.sigmas == travelled.sigmas and found.travelled.boundaries == (0.5,)
    assert np.array_equal(found.travelled.gram, travelled.gram) and found.profile == fine.profile
    assert torch.equal(found.ends, fine.ends) and found.inputs == fine.inputs
    with pytest.raises(gatekit.InputError, match="other models"):
        load(file, ["b"])
    save_file({"gram": travelled.gram}, file, metadata={"gatekit_travel": "{}"})
    with pytest.raises(gatekit.InputError, match="no measurement"):
        load(file, ["a"])
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(gatekit.InputError, match="no measurement"):
        load(file, ["a"])
