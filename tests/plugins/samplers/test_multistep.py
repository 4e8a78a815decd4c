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


SIGMAS = [0.9, 0.72, 0.6, 0.41, 0.3]


def mean_of_power(start, to, k):
    """Of s^k over the step."""
    return (to ** (k + 1) - start ** (k + 1)) / (k + 1) / (to - start)


def test_adams_weights_follow_the_steps():
    """They sum to 1 and integrate polynomials in s; over equal steps they are the textbook's."""
    square = lambda s: s * s  # noqa: E731
    for nodes in (SIGMAS[1::-1], SIGMAS[2::-1], SIGMAS[3::-1]):
        weights = gatekit.multistep_weights(FLOW, "s", nodes[0], 0.3, nodes, square)
        assert sum(weights) == pytest.approx(1.0, abs=1e-13)
        for k in range(len(nodes)):
            total = sum(w * n**k for w, n in zip(weights, nodes, strict=True))
            assert total == pytest.approx(mean_of_power(nodes[0], 0.3, k), abs=1e-12)
    textbook = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55, -59, 37, -9)}
    for count, expected in textbook.items():
        nodes = [0.5 + 0.1 * i for i in range(count)]
        found = gatekit.multistep_weights(FLOW, "s", 0.5, 0.4, nodes, square)
        scale = 24 if count == 4 else 1
        assert [scale * w for w in found] == pytest.approx(expected, abs=1e-9)


def test_adams_equals_the_contracts_own_ab2():
    """The two lines of the developer's guide."""
    x, past = X, None
    for s, to in pairwise(GRID[:-1]):
        v = (x - FIELD(x, s)) / s
        slope = v if past is None else v + (to - s) / (2 * (s - past[0])) * (v - past[1])
        x, past = x + (to - s) * slope, (s, v)
    ours = gatekit.sample(FIELD, X, GRID[:-1], sampler="ab2")
    assert torch.allclose(ours, x, atol=1e-12)
    assert torch.allclose(ours, gatekit.sample(FIELD, X, GRID[:-1], sampler="ipndm", order=2))


def test_deis_is_adams_of_the_lifted_state():
    """x/alpha at sigma s/alpha is a variance-exploding state, with noise for velocity."""
    sigmas = [0.9, 0.8, 0.6, 0.35, 0.12]
    lifted = lambda x, ve: FIELD(x / (1 + ve), ve / (1 + ve))  # noqa: E731
    for order, name in ((2, "ab2"), (3, "ab3")):
        there = gatekit.sample(
            lifted, X / 0.1, [s / (1 - s) for s in sigmas], sampler=name, path="ve"
        )
        here = gatekit.sample(FIELD, X, sigmas, sampler="deis", order=order)
        assert torch.allclose(here, there * (1 - sigmas[-1]), atol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("start", "to"), [(0.7, 0.5), (0.9, 0.2), (1.0, 0.9)])
def test_stochastic_weights_are_the_integrals(start, to, eta):
    """W_j under (1 + eta) y^eta dy, by brute force in y, with l_j in theta."""
    import numpy

    nodes = [start, (start + to) / 2]
    weights = gatekit.multistep_weights(
        FLOW, "theta", start, to, nodes, lambda s: ((1 - s) / s) ** eta
    )
    y = numpy.linspace((1 - start) / start, (1 - to) / to, 200_001)
    y = (y[1:] + y[:-1]) / 2
    theta = numpy.arctan(y)  # atan2(1 - s, s)
    a, b = (math.atan2(1 - s, s) for s in nodes)
    share = float(numpy.average((theta - a) / (b - a), weights=y**eta))
    assert weights == pytest.approx((1 - share, share), abs=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_stochastic_weights_in_lam_have_a_closed_form(eta):
    """Mean of t under e^((1 + eta) t) on [0, h]: h/(1 - e^-H) - h/H, H = (1 + eta) h."""
    nodes = (0.6, 0.8)
    weights = gatekit.multistep_weights(
        FLOW, "lam", 0.6, 0.3, nodes, lambda s: ((1 - s) / s) ** eta
    )
    h = FLOW.lam(0.3) - FLOW.lam(0.6)
    mean = h / (1 - math.exp(-(1 + eta) * h)) - 1 / (1 + eta)
    expected = mean / (FLOW.lam(0.8) - FLOW.lam(0.6))
    assert weights[1] == pytest.approx(expected, abs=1e-12)


def orders(step, grids=(40, 80)):
    truth, errors = FIELD.flow(X, 0.9, 0.2, steps=1000), []
    for steps in grids:
        sigmas = [0.9 - 0.7 * i / steps for i in range(steps)] + [0.2]
        errors.append(float((step(sigmas) - truth).square().mean().sqrt()))
    return math.log2(errors[0] / errors[1])


def published_3m(sigmas, factor):
    """DPM-Solver++(3M) as k-diffusion and diffusers write it, started with the true flow.

    ``factor`` multiplies the term of the second difference: theirs is 1.
    """
    x, past = X, []
    for s, to in pairwise(sigmas):
        d, lam = FIELD(x, s), FLOW.lam(s)
        h = FLOW.lam(to) - lam
        if len(past) < 2:
            x = FIELD.flow(x, s, to, steps=20)
        else:
            (l1, d1), (l2, d2) = past
            r0, r1 = (lam - l1) / h, (l1 - l2) / h
            first, second = (d - d1) / r0, (d1 - d2) / r1
            slope = first + (first - second) * r0 / (r0 + r1)
            bend = (first - second) / (r0 + r1)
            phi2 = math.expm1(-h) / h + 1
            phi3 = phi2 / h - 0.5
            change = -math.expm1(-h) * d + phi2 * slope - factor * phi3 * bend
            x = to / s * x + (1 - to) * change
        past = [(lam, d), *past][:2]
    return x


def test_third_order_of_dpmpp_3m_needs_the_whole_integral():
    assert orders(lambda sigmas: published_3m(sigmas, 1)) < 2.4
    assert orders(lambda sigmas: published_3m(sigmas, 2)) > 2.7


@pytest.mark.parametrize("name", ["dpmpp_3m", "res_3m", "ab3"])
def test_without_the_redone_first_step_the_order_is_two(name):
    cls = gatekit.list_samplers()[name]

    class Plain(cls):
        def corrected(self, c, denoised):
            return c.x

    assert orders(lambda s: gatekit.sample(FIELD, X, s, sampler=cls()), (80, 160)) > 2.7
    assert orders(lambda s: gatekit.sample(FIELD, X, s, sampler=Plain()), (80, 160)) < 2.4


def test_deis_reaches_order_three_on_fine_grids():
    run = lambda s: gatekit.sample(FIELD, X, s, sampler="deis", order=3)  # noqa: E731
    assert orders(run, (160, 320)) == pytest.approx(3.0, abs=0.3)


def test_res_3s_needs_three_c3_squared():
    """With 3 c_3^3 for gamma the order is 2."""
    cls = gatekit.list_samplers()["res_3s"]
    run = lambda s: gatekit.sample(FIELD, X, s, sampler="res_3s", c2=0.4, c3=0.7)  # noqa: E731
    assert orders(run) > 2.7

    class Cubed(cls):
        def step(self, c):
            from gatekit_samplers.stages import Stages

            c2, c3 = 0.4, 0.7
            gamma = (3 * c3**3 - 2 * c3) / (c2 * (2 - 3 * c2))
            s = Stages(c, "u", 0.0)
            s2, s3, d = s.place(c2), s.place(c3), c.denoise(c.x, c.sigma)
            e = c.denoise(s.go(s2, d, None), s2) - d
            a32 = gamma * s.share(s2) / s.share(s3) * s.moment(s2) + c3 / c2 * s.moment(s3)
            f = c.denoise(s.go(s3, d + a32 * e, None), s3) - d
            b3 = s.moment(c.sigma_next) / (gamma * c2 + c3)
            return gatekit.StepResult(s.go(c.sigma_next, d + b3 * (gamma * e + f), None), d)

    assert orders(lambda s: gatekit.sample(FIELD, X, s, sampler=Cubed())) < 2.4


def test_res_2s_is_the_exponential_midpoint_rule():
    """phi_1 and phi_2 of -h, written out."""
    s, to = 0.8, 0.5
    h = math.log(s / to)
    middle = math.sqrt(s * to)
    d = FIELD(X, s)
    inner = middle / s * X - math.expm1(-h / 2) * d
    phi1, phi2 = -math.expm1(-h) / h, (math.expm1(-h) + h) / h**2
    # On a flow y = e^u - 1: D enters by alpha' - alpha s'/s = 1 - s'/s = 1 - e^-h.
    x = to / s * X + h * ((phi1 - 2 * phi2) * d + 2 * phi2 * FIELD(inner, middle))
    assert torch.allclose(gatekit.sample(FIELD, X, [s, to], sampler="res_2s"), x, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "params"),
    [("res_2s", {}), ("res_3s", {}), ("seeds_2", {"eta": 0.0}), ("dpmpp_sde", {"eta": 0.0})],
)
@pytest.mark.parametrize("coordinate", ["lam", "u", "s", "theta", "ve"])
def test_stages_are_regular_at_sigma_one(name, params, coordinate):
    fine = [1.0 - 0.8 * i / 60 for i in range(61)]
    end = gatekit.sample(FIELD, X, fine, sampler=name, coordinate=coordinate, **params)
    assert torch.allclose(end, FIELD.flow(X, 1.0, fine[-1]), atol=2e-3)


def test_stages_refuse_nodes_without_a_method():
    with pytest.raises(InputError, match="no method of order 3"):
        gatekit.sample(FIELD, X, GRID, sampler="res_3s", c2=2 / 3, c3=0.9)
    with pytest.raises(InputError, match="c2 must lie before c3"):
        gatekit.sample(FIELD, X, GRID, sampler="seeds_3", c2=0.6, c3=0.4)
