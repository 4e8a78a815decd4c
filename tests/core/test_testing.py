"""The kit must catch what it is there to catch."""

import pytest
import torch

from gatekit import Sampler, StepResult
from gatekit.testing import CHECKS, Constant, Gaussian, Mixture, parametrize_with_checks
from gatekit.testing.checks import draw

BY_NAME = {check.__name__: check for check in CHECKS}


class AdamsBashforth2(Sampler):
    """The contract's own example."""

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


class Base(Sampler):
    name = "base"
    count = 0

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, d, c.sigma_next), d)


class Boastful(Base):
    order = 2


class Costly(Base):
    def step(self, c):
        c.denoise(c.x + 0.0, c.sigma)
        return super().step(c)


class Overreaching(Base):
    def step(self, c):
        c.denoise(c.x, c.sigma_next / 2)
        return super().step(c)


class GlobalNoise(Base):
    stochastic = True

    def step(self, c):
        r = super().step(c)
        return StepResult(r.x + 0.01 * torch.randn(r.x.shape), r.denoised)


class Undeclared(Base):
    def step(self, c):
        r = super().step(c)
        return StepResult(r.x + 0.01 * c.noise(), r.denoised)


class Remembering(Base):
    """State in the instance: neither cut nor resume survives it."""

    def step(self, c):
        self.count = 0 if c.sigma == 1.0 else self.count + 1
        r = super().step(c)
        return StepResult(r.x + 0.001 * self.count, r.denoised)


class PhaseBound(Base):
    def step(self, c):
        r = super().step(c)
        return StepResult(r.x * (1 + 0.01 * len(c.memory)), r.denoised, memory={"a": 1.0})


class Mixing(Base):
    def step(self, c):
        r = super().step(c)
        return StepResult(r.x + 0.01 * r.x.mean(), r.denoised)


class InPlace(Base):
    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        d.mul_(1.0)
        return StepResult(c.transfer(c.x, d, c.sigma_next), d)


class Biased(Base):
    def step(self, c):
        r = super().step(c)
        return StepResult(r.x * 1.05, r.denoised)


class Nameless(Base):
    name = ""


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (Boastful, "check_order"),
        (Costly, "check_nfe"),
        (Overreaching, "check_interval"),
        (GlobalNoise, "check_random"),
        (Undeclared, "check_random"),
        (Remembering, "check_resume"),
        (Mixing, "check_batch"),
        (InPlace, "check_types"),
        (Biased, "check_constant"),
        (Biased, "check_distribution"),
        (Nameless, "check_declaration"),
    ],
)
def test_a_broken_sampler_is_caught(cls, check):
    with pytest.raises(AssertionError):
        BY_NAME[check](cls())


def test_memory_through_the_result_is_fine():
    BY_NAME["check_split"](PhaseBound())
    BY_NAME["check_resume"](PhaseBound())


def test_unknown_checks_are_refused():
    with pytest.raises(ValueError, match="check_ordr"):
        parametrize_with_checks(Base, skip=["check_ordr"])


def test_fields_agree_with_their_flows():
    x = draw(1, 50)
    gaussian, like = Gaussian(0.5, 0.6), Mixture((1.0,), (0.5,), (0.6,))
    assert (gaussian(x, 0.7) - like(x, 0.7)).abs().max() < 1e-12
    assert (gaussian.flow(x, 0.9, 0.3) - like.flow(x, 0.9, 0.3)).abs().max() < 1e-9
    assert float(Constant(0.3)(x, 0.5).std()) == 0.0
