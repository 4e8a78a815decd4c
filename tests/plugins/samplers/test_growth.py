"""A step much longer than those behind it: what multistep samplers then leave out."""

import math
from dataclasses import replace

import pytest
import torch

import gatekit
from gatekit.testing import Mixture

FIELD = Mixture()
X = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", ["ab2", "ab3", "ipndm", "dpmpp_3m", "res_2m", "res_3m"])
def test_a_step_that_grows_abruptly_does_not_multiply_the_models_errors(name):
    """A hundred times longer than the last: the oldest points are left out."""
    cls = gatekit.list_samplers()[name]
    sigmas, calls = [0.9, 0.899, 0.898, 0.897, 0.8, 0.5, 0.2], []

    class Unbounded(cls):
        limit = math.inf

    def rough(x, sigma):
        calls.append(sigma)
        return FIELD(x, sigma) + 1e-3 * (-1.0) ** len(calls)

    def effect(sampler):
        calls.clear()
        ends = (gatekit.sample(f, X, sigmas, sampler=sampler) for f in (FIELD, rough))
        return float((next(ends) - next(ends)).abs().max())

    assert effect(cls()) < 0.005 and 2 * effect(cls()) < effect(Unbounded())


def test_the_corrector_knows_what_its_predictor_left_out():
    """sa_solver redoes a step with the points the step had; told of more it goes astray."""
    sigmas = [0.9, 0.899, 0.898, 0.6, 0.3]
    cls = gatekit.list_samplers()["sa_solver"]

    class Forgetful(cls):
        def step(self, c):
            return replace(super().step(c), memory={"points": 3.0})

    truth = FIELD.flow(X, 0.9, 0.3)
    errors = [
        float((gatekit.sample(FIELD, X, sigmas, sampler=s(s.Params(tau=0.0))) - truth).abs().max())
        for s in (cls, Forgetful)
    ]
    assert 1.5 * errors[0] < errors[1]
