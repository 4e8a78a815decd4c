"""commit, structure and polish: what they are made of."""

import pytest
import torch

import gatekit
from gatekit.functional import FunctionPhase, trace_phases
from gatekit.testing import Mixture

FIELD = Mixture()
X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GRID = [1.0, 0.93, 0.8, 0.6, 0.35, 0.12, 0.0]


@pytest.mark.parametrize(("name", "coordinate"), [("commit", "lam"), ("structure", "theta")])
def test_they_are_unipc_in_their_coordinate(name, coordinate):
    wanted = gatekit.sample(FIELD, X, GRID, sampler="unipc", coordinate=coordinate)
    assert gatekit.sample(FIELD, X, GRID, sampler=name, limit=False).equal(wanted)
    with pytest.raises(gatekit.InputError, match="less than or equal to 2"):
        gatekit.sample(FIELD, X, GRID, sampler=name, order=3)


def test_the_limiter_leaves_a_field_alone_that_its_line_follows():
    smooth, grid = gatekit.testing.Gaussian(), [0.9 - 0.02 * i for i in range(40)]
    ours, free = (
        gatekit.sample(smooth, X, grid, sampler="structure", limit=n) for n in (True, False)
    )
    assert torch.allclose(ours, free, atol=1e-14)


def test_the_limiter_shortens_a_slope_by_how_wrong_the_last_line_was():
    """Predictions 1, -1, 1: the line missed by 4 where D turned by 2, so a quarter is left."""

    def denoise(x, sigma):
        return torch.full_like(x, 1.0 if round(100 * sigma) % 2 else -1.0)

    grid, ends = [0.95, 0.9, 0.85, 0.8], {}
    for limit in (True, False):
        params = {"limit": limit, "corrector": False, "coordinate": "s"}
        before = gatekit.sample(denoise, X, grid[:-1], sampler="structure", **params)
        held = gatekit.sample(denoise, before, grid[-2:], sampler="euler")
        ends[limit] = gatekit.sample(denoise, X, grid, sampler="structure", **params) - held
    assert torch.allclose(ends[True], ends[False] / 4)
    assert ends[False].abs().min() > 1e-3


def test_the_limiter_judges_each_sample_by_itself():
    def denoise(x, sigma):
        wild = torch.tensor([[1.0], [0.0]], dtype=x.dtype)[: len(x)] if len(x) > 1 else wild_alone
        return 0.3 * x + wild * (1.0 if round(100 * sigma) % 2 else -1.0)

    swings = [0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65]
    wild_alone = torch.zeros(1, 1, dtype=X.dtype)
    both = gatekit.sample(denoise, X, swings, sampler="structure")
    assert torch.equal(both[1:], gatekit.sample(denoise, X[1:], swings, sampler="structure"))


def test_polish_is_structure_until_the_last_interval():
    a, b = (gatekit.sample(FIELD, X, GRID[:-1], sampler=s) for s in ("polish", "structure"))
    assert a.equal(b)
    without = gatekit.sample(FIELD, X, GRID, sampler="polish", terminal=0.0, settle=True)
    assert without.equal(gatekit.sample(FIELD, X, GRID, sampler="structure"))


def test_terminal_step_is_exact_for_a_prediction_linear_in_sigma_squared():
    def denoise(x, sigma):
        return x * 0.0 + 0.3 + 0.8 * sigma**2

    ours = gatekit.sample(denoise, X, GRID, sampler="polish", settle=False)
    assert torch.allclose(ours, ours * 0.0 + 0.3, atol=1e-12)


def test_the_last_prediction_follows_the_correction_of_its_state():
    """Where the state shows all (D = x/alpha + drift), less of the predictor's error is left."""

    def denoise(x, sigma):
        return x / (1 - sigma) + 0.5 * sigma**3

    grid = [0.4, 0.36, 0.32, 0.28, 0.15, 0.02, 0.0]
    fine = [0.4 - 0.398 * i / 4000 for i in range(4001)] + [0.0]
    truth = gatekit.sample(denoise, X, fine, sampler="rk4")
    errors = [
        float((gatekit.sample(denoise, X, grid, sampler="polish", settle=s) - truth).abs().max())
        for s in (True, False)
    ]
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("sigmas", [[1.0, 0.8, 0.5, 0.0], [0.3, 0.0]])
def test_terminal_step_is_skipped_far_from_zero_and_without_a_past(sigmas):
    run = trace_phases([FunctionPhase(FIELD, "polish", sigmas)], X)
    last = run.state.past[0]
    assert run.x.equal(last.denoised) and last.sigma == sigmas[-2]


def test_terminal_step_helps_a_smooth_target():
    """A single Gaussian: D along its flow is smooth in sigma^2."""
    target = gatekit.testing.Gaussian()
    fine = [1 - 0.9 * i / 40 for i in range(41)] + [0.0]
    truth = target.flow(X, 1.0, 0.0)
    errors = [
        float((gatekit.sample(target, X, fine, sampler=s) - truth).abs().max())
        for s in ("polish", "structure")
    ]
    assert errors[0] < errors[1] / 5
