"""The kit takes samplers as they come, and its fields are what they say."""

import pytest

from gatekit import Sampler, StepResult
from gatekit.testing import Constant, Gaussian, Mixture, parametrize_with_checks
from gatekit.testing.checks import draw


class AdamsBashforth2(Sampler):
    """The contract's own example. Source: Hairer, Norsett, Wanner, volume I, III.1."""

    name, order, history = "ab2", 2, 1

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        v, ds = c.velocity(c.x, d), c.sigma_next - c.sigma
        if c.past:
            (p,) = c.past
            v = v + ds / (2 * (c.sigma - p.sigma)) * (v - p.velocity)
        return StepResult(c.x + ds * v, d)


@parametrize_with_checks(AdamsBashforth2)
def test_a_sampler_of_ones_own(sampler, check):
    check(sampler)


@parametrize_with_checks([AdamsBashforth2], skip=["check_order"])
def test_checks_may_stand_alone(check):
    assert check.__name__ != "check_order"
    if check.__name__ == "check_nfe":
        check()


def test_unknown_checks_are_refused():
    with pytest.raises(ValueError, match="check_ordr"):
        parametrize_with_checks(AdamsBashforth2, skip=["check_ordr"])


def test_fields_agree_with_their_flows():
    x = draw(1, 50)
    gaussian, like = Gaussian(0.5, 0.6), Mixture((1.0,), (0.5,), (0.6,))
    assert (gaussian(x, 0.7) - like(x, 0.7)).abs().max() < 1e-12
    assert (gaussian.flow(x, 0.9, 0.3) - like.flow(x, 0.9, 0.3)).abs().max() < 1e-9
    assert float(Constant(0.3)(x, 0.5).std()) == 0.0
