import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatekit import InputError, RectifiedFlow, VarianceExploding
from gatekit.path import COORDINATES, RULES, as_path

FLOW, VE = RectifiedFlow(), VarianceExploding()
SIGMA = st.floats(0.001, 0.999)


def state(path, x0, n, sigma):
    return path.alpha(sigma) * x0 + sigma * n


@pytest.mark.parametrize("path", [FLOW, VE])
@given(a=SIGMA, b=SIGMA, x0=st.floats(-2, 2), n=st.floats(-2, 2))
def test_transfer_is_exact_for_a_constant_prediction(path, a, b, x0, n):
    x = torch.tensor([state(path, x0, n, a)], dtype=torch.float64)
    moved = path.transfer(x, torch.tensor([x0], dtype=torch.float64), a, b)
    assert float(moved) == pytest.approx(state(path, x0, n, b), abs=1e-9 / a)


def test_transfer_is_finite_at_both_ends_of_a_flow():
    x, d = torch.ones(1), torch.full((1,), 3.0)
    assert float(FLOW.transfer(x, d, 1.0, 0.25)) == pytest.approx(0.25 + 0.75 * 3)
    assert float(FLOW.transfer(x, d, 0.5, 0.0)) == 3.0


def test_lam_never_raises():
    assert FLOW.lam(1.0) == -math.inf
    assert FLOW.lam(0.0) == VE.lam(0.0) == math.inf
    assert FLOW.lam(0.5) == 0.0
    assert VE.lam(2.0) == pytest.approx(-math.log(2))


@pytest.mark.parametrize("path", [FLOW, VE])
@given(low=SIGMA, high=SIGMA)
def test_renoise_gives_the_variance_of_the_higher_level(path, low, high):
    low, high = sorted((low, high))
    # Linear in x and n: signal and noise parts are read off separately.
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    signal = float(path.renoise(one * path.alpha(low), low, high, zero))
    assert signal == pytest.approx(path.alpha(high))
    old = float(path.renoise(one * low, low, high, zero))
    fresh = float(path.renoise(zero, low, high, one))
    assert old**2 + fresh**2 == pytest.approx(high**2)


@pytest.mark.parametrize("to", [0.4, 1.1, math.nan])
def test_renoise_goes_up_and_no_further_than_the_path(to):
    with pytest.raises(InputError, match=r"renoise goes up.*at most 1"):
        FLOW.renoise(torch.ones(1), 0.5, to, torch.ones(1))


@pytest.mark.parametrize("path", [FLOW, VE])
@given(a=SIGMA, b=SIGMA, eta=st.floats(0, 1))
def test_sigma_down_lies_at_or_below_the_target(path, a, b, eta):
    low, high = sorted((a, b))
    for rule in RULES:
        down = path.sigma_down(high, low, eta, rule)
        assert 0.0 <= down <= low
        assert path.sigma_down(high, low, 0.0, rule) == low


def test_sigma_down_rules():
    # At eta 1 the lifted rules are the DDPM posterior: ve_down = ve_to^2 / ve_from.
    ve = FLOW.ve(0.5) ** 2 / FLOW.ve(0.8)
    assert FLOW.sigma_down(0.8, 0.5, 1.0, "lift") == pytest.approx(ve / (1 + ve))
    assert FLOW.sigma_down(0.8, 0.5, 1.0, "sde") == pytest.approx(ve / (1 + ve))
    assert FLOW.sigma_down(0.8, 0.5, 1.0, "linear") == pytest.approx(0.5 * 0.5 / 0.8)
    assert FLOW.sigma_down(1.0, 0.5, 1.0, "lift") == 0.0
    with pytest.raises(InputError, match="eta out of range"):
        FLOW.sigma_down(0.8, 0.5, 1.2)
    with pytest.raises(InputError, match="unknown rule"):
        FLOW.sigma_down(0.8, 0.5, 0.5, "ddim")


@pytest.mark.parametrize("path", [FLOW, VE])
def test_coordinates_are_monotone(path):
    sigmas = [0.05, 0.2, 0.5, 0.9]
    for name in COORDINATES:
        values = [path.coordinate(name, s) for s in sigmas]
        assert values in (sorted(values), sorted(values, reverse=True))
    with pytest.raises(InputError, match="unknown coordinate"):
        path.coordinate("logsnr", 0.5)


@given(sigma=SIGMA)
def test_ve_and_back(sigma):
    assert FLOW.from_ve(FLOW.ve(sigma)) == pytest.approx(sigma)
    assert VE.from_ve(VE.ve(sigma)) == sigma


def test_as_path():
    assert as_path("flow").name == "flow"
    assert as_path(VE) is VE
    with pytest.raises(InputError, match="unknown path"):
        as_path("vp")
