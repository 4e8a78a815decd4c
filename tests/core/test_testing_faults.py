"""Faults planted on purpose: the kit must catch what it is there to catch."""

from itertools import pairwise

import numpy
import pytest
import torch
from pydantic import ConfigDict

from gatekit import GatekitError, Sampler, SamplerParams, StepResult
from gatekit.testing import CHECKS

BY_NAME = {check.__name__: check for check in CHECKS}


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


class Hoarding(Base):
    """A second-order method that keeps its last prediction in self: right in one plain run."""

    order = 2

    def __init__(self, params=None):
        super().__init__(params)
        self.last = []

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        v, ds = c.velocity(c.x, d), c.sigma_next - c.sigma
        if self.last and self.last[-1][0] > c.sigma:
            sigma, old = self.last[-1]
            v = v + ds / (2 * (c.sigma - sigma)) * (v - old)
        self.last.append((c.sigma, c.velocity(c.x, d)))
        return StepResult(c.x + ds * v, d)


class NumpyNoise(Base):
    stochastic = True

    def step(self, c):
        r = super().step(c)
        return StepResult(r.x + 0.01 * float(numpy.random.randn()), r.denoised)


class VENoise(Base):
    """k-diffusion's Euler ancestral as it is, on whatever path it meets: right on ve alone."""

    name, stochastic = "ve-noise", True

    def step(self, c):
        d, s, to = c.denoise(c.x, c.sigma), c.sigma, c.sigma_next
        up = to * (1 - (to / s) ** 2) ** 0.5
        down = (to**2 - up**2) ** 0.5
        return StepResult(c.x + (down - s) * c.velocity(c.x, d) + up * c.noise(), d)


class WeakNoise(Base):
    """Adds too little noise: the mean stays right."""

    stochastic = True

    def step(self, c):
        d, down = c.denoise(c.x, c.sigma), c.sigma_down(1.0)
        x = c.transfer(c.x, d, down)
        return StepResult(c.renoise(x, down, noise=0.8 * c.noise()), d)


class Single(Base):
    """Always float32."""

    def step(self, c):
        r = super().step(c)
        return StepResult(r.x.float(), r.denoised)


class Rounding(Base):
    """float32 inside, whatever it is given."""

    def step(self, c):
        r = super().step(c)
        return StepResult(r.x.float().to(c.x.dtype), r.denoised)


class Forgetful(Base):
    """Order 2, but extrapolates from nothing where history is missing in the middle."""

    order, history = 2, 1

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        v, ds = c.velocity(c.x, d), c.sigma_next - c.sigma
        if c.past:
            (p,) = c.past
            v = v + ds / (2 * (c.sigma - p.sigma)) * (v - p.velocity)
        elif c.sigma < 0.8:
            v = v * 0.5
        return StepResult(c.x + ds * v, d)


class Divergent(Base):
    """Divides by alpha, which is 0 at sigma 1 on a flow."""

    def step(self, c):
        r = super().step(c)
        lifted = c.x / c.alpha(c.sigma) if c.alpha(c.sigma) else c.x * float("inf")
        return StepResult(r.x + 0.0 * lifted, r.denoised)


class Lax(SamplerParams):
    model_config = ConfigDict(extra="ignore")


class Accepting(Base):
    """Takes any parameter."""

    Params = Lax


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


class Counting(Base):
    """Owns its loop, and lets its steps depend on how many there are in the phase."""

    def integrate(self, c):
        x = c.x
        for sigma, to in pairwise(c.sigmas):
            if to > 0.0:
                d = c.denoise(x, sigma)
                x = c.transfer(x, d, to, start=sigma) * (1 + 0.01 / len(c.sigmas))
                yield to, StepResult(x, d)


class Expectant(Base):
    """Takes it for granted that there is a past once the run has left sigma 1."""

    history = 1

    def step(self, c):
        r = super().step(c)
        return StepResult(r.x if c.past or c.sigma > 0.9 else r.x / 0.0, r.denoised)


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
        (NumpyNoise, "check_random"),
        (VENoise, "check_spread"),
        (VENoise, "check_distribution"),
        (WeakNoise, "check_spread"),
        (WeakNoise, "check_distribution"),
        (Remembering, "check_resume"),
        (Remembering, "check_pure"),
        (Hoarding, "check_pure"),
        (Hoarding, "check_resume"),
        (Forgetful, "check_reset"),
        (Divergent, "check_finite"),
        (Single, "check_types"),
        (Rounding, "check_constant"),
        (Accepting, "check_parameters"),
        (Accepting, "check_declaration"),
        (Base, "check_source"),
        (Counting, "check_split"),
        (Expectant, "check_boundary"),
        (Mixing, "check_batch"),
        (InPlace, "check_types"),
        (Biased, "check_constant"),
        (Biased, "check_distribution"),
        (Nameless, "check_declaration"),
    ],
)
def test_a_broken_sampler_is_caught(cls, check):
    with pytest.raises((AssertionError, GatekitError)):
        BY_NAME[check](cls())


def test_every_check_has_a_fault_that_it_catches():
    (marked,) = (m for m in test_a_broken_sampler_is_caught.pytestmark if m.name == "parametrize")
    assert {check for _, check in marked.args[1]} == set(BY_NAME)


def test_what_the_faults_are_planted_in_passes():
    """They are caught for what is planted in them."""
    for name in set(BY_NAME) - {"check_source"}:
        BY_NAME[name](Base())
    for name in ("check_constant", "check_distribution", "check_nfe", "check_order"):
        BY_NAME[name](Hoarding())


def test_memory_through_the_result_is_fine():
    BY_NAME["check_split"](PhaseBound())
    BY_NAME["check_resume"](PhaseBound())
