import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit import ScheduleError
from gatekit.functional import make_params
from gatekit.registry import registry
from gatekit_basics.beta import beta_cdf, beta_quantile
from gatekit_basics.grids import shifted, unshifted

NAMES = ("shifted_linear", "karras", "exponential", "beta")


def grid(name, **params):
    cls = registry().get("grid", name)
    return cls(make_params(cls, params, name))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(steps=st.integers(1, 60))
def test_whole_runs(name, steps):
    sigmas = grid(name)(steps)
    assert len(sigmas) == steps + 1 and sigmas[0] == 1.0 and sigmas[-1] == 0.0
    assert all(a > b for a, b in pairwise(sigmas))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(
    st.integers(1, 30),
    st.lists(st.floats(0.0, 1.0), min_size=2, max_size=2, unique_by=lambda v: round(v, 2)),
)
def test_stretches_keep_their_ends(name, steps, ends):
    low, high = sorted(ends)
    sigmas = grid(name).stretch(high, low, steps)
    assert (sigmas[0], sigmas[-1], len(sigmas)) == (high, low, steps + 1)


def test_shifted_linear_is_wans_grid():
    for shift in (5.0, 12.0):
        us = [0.999 - 0.999 * i / 40 for i in range(40)]
        wan = [shift * u / (1 + (shift - 1) * u) for u in us] + [0.0]
        assert grid("shifted_linear", shift=shift, start=0.999)(40) == pytest.approx(wan, abs=1e-12)
    assert grid("shifted_linear", shift=1.0)(4) == (1.0, 0.75, 0.5, 0.25, 0.0)


def test_a_stretch_of_a_shifted_grid_lies_on_it():
    whole = grid("shifted_linear")(20)
    assert grid("shifted_linear").stretch(whole[4], whole[12], 8) == pytest.approx(whole[4:13])


@given(u=st.floats(0, 1), shift=st.floats(0.1, 20))
def test_shift_and_back(u, shift):
    assert unshifted(shifted(u, shift), shift) == pytest.approx(u, abs=1e-9)


def test_karras():
    sigmas = grid("karras", sigma_min=0.02)(10)
    roots = [s ** (1 / 7) for s in sigmas[:-1]]
    gaps = [a - b for a, b in pairwise(roots)]
    assert sigmas[-2] == pytest.approx(0.02) and gaps == pytest.approx([gaps[0]] * 9)


def test_exponential():
    sigmas = grid("exponential", sigma_min=0.02, sigma_max=14.0)(10)
    ratios = [a / b for a, b in pairwise(sigmas[:-1])]
    assert sigmas[0] == 14.0 and ratios == pytest.approx([ratios[0]] * 9)


@pytest.mark.parametrize(("a", "b"), [(0.6, 0.6), (0.5, 0.5), (2.0, 3.0), (5.0, 1.0)])
def test_beta_functions(a, b):
    for i in range(1, 20):
        x = i / 20
        assert beta_quantile(beta_cdf(x, a, b), a, b) == pytest.approx(x, abs=1e-9)
    if (a, b) == (0.5, 0.5):
        assert beta_cdf(0.3, a, b) == pytest.approx(2 / math.pi * math.asin(math.sqrt(0.3)))
    if (a, b) == (5.0, 1.0):
        assert beta_cdf(0.7, a, b) == pytest.approx(0.7**5)
    if (a, b) == (2.0, 3.0):
        assert beta_cdf(0.4, a, b) == pytest.approx(6 * 0.4**2 - 8 * 0.4**3 + 3 * 0.4**4)
    assert (beta_quantile(0.0, a, b), beta_quantile(1.0, a, b)) == (0.0, 1.0)


def test_beta_is_dense_at_both_ends():
    sigmas = grid("beta", shift=1.0)(20)
    gaps = [a - b for a, b in pairwise(sigmas)]
    assert gaps[10] > 3 * gaps[0] and gaps[10] > 3 * gaps[-1]


def test_explicit():
    listed = grid("explicit", values=[1.0, 0.6, 0.3, 0.0])
    assert listed.fixed_steps == 3 and listed.start == 1.0
    assert listed(3) == (1.0, 0.6, 0.3, 0.0)
    assert listed.stretch(0.8, 0.2, 3) == (0.8, 0.6, 0.3, 0.2)
    with pytest.raises(ScheduleError, match="set steps to 3"):
        listed(4)


@pytest.mark.parametrize("values", [[1.0], [1.0, 0.5], [0.5, 1.0, 0.0]])
def test_bad_lists(values):
    from gatekit import InputError

    with pytest.raises(InputError):
        grid("explicit", values=values)
