"""Samplers against their formulas, written out a second time."""

import math
from itertools import pairwise

import pytest
import torch

import gatekit
from gatekit import InputError, RectifiedFlow
from gatekit.testing import Constant, Mixture
from gatekit_samplers.unipc import bh_weights

FIELD, FLOW = Mixture(), RectifiedFlow()
GRID = [1.0, 0.93, 0.8, 0.6, 0.35, 0.12, 0.0]
X = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_dpmpp_2m_in_u_is_k_diffusions_formula():
    """t = -log sigma; x' = (s'/s) x - expm1(-h) ((1 + 1/(2r)) D - 1/(2r) D_old)."""
    x, old, h_last = X, None, None
    for s, to in pairwise(GRID):
        d = FIELD(x, s)
        if to == 0.0:
            x = d
            break
        h, mixed = math.log(s / to), d
        if old is not None:
            r = h_last / h
            mixed = (1 + 1 / (2 * r)) * d - 1 / (2 * r) * old
        x, old, h_last = (to / s) * x - math.expm1(-h) * mixed, d, h
    ours = gatekit.sample(FIELD, X, GRID, sampler="dpmpp_2m", coordinate="u")
    assert (ours - x).abs().max() < 1e-12


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "unipc"])
def test_in_lam_the_second_step_from_sigma_one_has_order_one(sampler):
    """h is infinite there, as in Wan's code."""
    params = {} if sampler == "dpmpp_2m" else {"corrector": False}
    two = gatekit.sample(FIELD, X, GRID[:3], sampler=sampler, **params)
    assert torch.allclose(two, gatekit.sample(FIELD, X, GRID[:3], sampler="euler"), atol=1e-12)
    other = gatekit.sample(FIELD, X, GRID[:3], sampler=sampler, coordinate="s", **params)
    assert not torch.allclose(other, two, atol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "unipc"])
def test_one_step_denoises(sampler):
    assert gatekit.sample(FIELD, X, [1.0, 0.0], sampler=sampler).equal(FIELD(X, 1.0))


def test_predictors_of_bh2_and_dpmpp_2m_agree():
    a = gatekit.sample(FIELD, X, GRID, sampler="unipc", corrector=False)
    assert torch.allclose(a, gatekit.sample(FIELD, X, GRID, sampler="dpmpp_2m"), atol=1e-12)


@pytest.mark.parametrize("coordinate", ["lam", "u"])
@pytest.mark.parametrize("implicit", [False, True])
def test_bh2_of_three_nodes_satisfies_its_order_conditions(coordinate, implicit):
    """sum_j a_j r_j^k = k! phi_{k+1} moments: the mean of r^k under e^{h r}, over [0, 1]."""
    nodes = [0.4, 0.6, 0.8] if implicit else [0.6, 0.8, 0.9]
    weights = bh_weights(FLOW, coordinate, 0.6, 0.4, nodes, implicit)
    exact = gatekit.multistep_weights(FLOW, coordinate, 0.6, 0.4, nodes)
    assert weights == pytest.approx(exact, abs=1e-9)


def test_coordinates_differ_and_all_converge():
    ends = {
        c: gatekit.sample(FIELD, X, GRID, sampler="unipc", coordinate=c)
        for c in ("lam", "u", "s", "theta", "ve")
    }
    values = list(ends.values())
    assert all(not a.equal(b) for i, a in enumerate(values) for b in values[:i])
    fine = [0.9 - 0.7 * i / 60 for i in range(61)]
    truth = FIELD.flow(X, 0.9, fine[-1])
    for c in ends:
        end = gatekit.sample(FIELD, X, fine, sampler="unipc", coordinate=c)
        assert (end - truth).abs().max() < 1e-3


def test_parameters_are_checked():
    with pytest.raises(InputError, match="coordinates lam and u"):
        gatekit.sample(Constant(), X, GRID, sampler="unipc", coordinate="s", weights="bh2")
    with pytest.raises(InputError, match="less than or equal to 3"):
        gatekit.sample(Constant(), X, GRID, sampler="unipc", order=4)


def test_order_and_history_follow_the_parameters():
    cls = gatekit.list_samplers()["unipc"]
    made = [
        cls(cls.Params(order=p, corrector=c))
        for p, c in ((1, False), (1, True), (2, True), (3, True))
    ]
    assert [m.order for m in made] == [1, 2, 3, 3] and [m.history for m in made] == [1, 1, 2, 3]
