"""Samplers that draw noise keep the law of the path, at every state they evaluate at."""

import math
from itertools import pairwise

import pytest
import torch

import gatekit
from gatekit import Sampler, StepResult
from gatekit.functional import FunctionPhase, trace_phases
from gatekit.path import as_path
from gatekit.testing import Constant, Gaussian, Mixture

NUMBER = 20_000
X = torch.randn(1, NUMBER, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TOPS = {"flow": 1.0, "ve": 20.0}
STOCHASTIC = [
    ("euler_ancestral", {}),
    ("euler_ancestral", {"rule": "sde", "eta": 0.6}),
    ("euler_ancestral", {"rule": "linear"}),
    ("euler_ancestral", {"rule": "lift", "eta": 0.6}),
    ("dpmpp_2m_sde", {}),
    ("dpmpp_3m_sde", {"eta": 0.5}),
    ("dpmpp_sde", {}),
    ("sa_solver", {}),
    ("er_sde", {}),
    ("er_sde", {"scale": "sde_2"}),
    ("seeds_2", {}),
    ("seeds_3", {"eta": 0.7}),
]
DETERMINISTIC = [
    ("euler_ancestral", {"eta": 0.0}, "euler", {}),
    ("dpmpp_2m_sde", {"eta": 0.0}, "dpmpp_2m", {}),
    ("dpmpp_3m_sde", {"eta": 0.0}, "dpmpp_3m", {}),
    ("seeds_2", {"eta": 0.0, "coordinate": "u"}, "res_2s", {}),
    ("seeds_3", {"eta": 0.0, "coordinate": "u", "c2": 0.5, "c3": 1.0}, "res_3s", {}),
    ("er_sde", {"scale": "ode", "coordinate": "lam"}, "dpmpp_3m", {}),
]


class VENoise(Sampler):
    """The planted fault: the ancestral step of variance-exploding models, without alpha."""

    name, stochastic = "ve_noise", True

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        up = min(c.sigma_next, c.sigma_next * math.sqrt(1 - (c.sigma_next / c.sigma) ** 2))
        down = math.sqrt(c.sigma_next**2 - up**2)
        return StepResult(c.transfer(c.x, d, down) + up * c.noise(), d)


def grid(path, steps):
    """Even in lam down to s/alpha = 0.02, then 0."""
    ve = [20.0 * (0.001 ** (i / (steps - 1))) for i in range(steps)]
    sigmas = [as_path(path).from_ve(v) for v in ve]
    return [TOPS[path], *sigmas[1:], 0.0]


def run(sampler, params, field, path, sigmas, seed=3):
    """Final x, and (sigma, mean, std) of every state that was evaluated."""
    seen = []

    def denoise(x, sigma):
        seen.append((sigma, float(x.mean()), float(x.std())))
        return field(x, sigma)

    start = TOPS[path] * X if path == "flow" else 20.0 * X + field(X * 0, 20.0)
    x = gatekit.sample(denoise, start, sigmas, sampler=sampler, seed=seed, path=path, **params)
    return x, seen


def assert_law(seen, law, slack=0.0):
    """Means and spreads within 4.5 Monte-Carlo errors, and ``slack`` for the step size."""
    for sigma, mean, std in seen:
        true_mean, true_std = law(sigma)
        error = 4.5 * true_std / math.sqrt(NUMBER)
        assert abs(mean - true_mean) < error + slack, f"mean {mean} at {sigma}, not {true_mean}"
        assert abs(std - true_std) < error + slack, f"std {std} at {sigma}, not {true_std}"


def assert_constant(sampler, params, path):
    """For a constant D the law at s is N(alpha D, s^2), whatever the steps."""
    field, noise_path = Constant(0.7), as_path(path)
    sigmas = grid(path, 12)
    x, seen = run(sampler, params, field, path, sigmas)
    assert_law(seen, lambda s: (noise_path.alpha(s) * 0.7, s))
    assert float((x - 0.7).abs().max()) < 1e-9


@pytest.mark.parametrize("path", ["flow", "ve"])
@pytest.mark.parametrize(("name", "params"), [*STOCHASTIC, ("lcm", {})])
def test_law_of_a_constant_prediction(name, params, path):
    assert_constant(name, params, path)


def assert_gaussian(sampler, params, path):
    """Many steps: the marginals of a Gaussian target."""
    field = Gaussian(path=as_path(path))
    x, seen = run(sampler, params, field, path, grid(path, 80))
    law = lambda s: (field.path.alpha(s) * field.mean, math.sqrt(field.variance(s)))  # noqa: E731
    assert_law([r for r in seen if r[0] < 0.6], law, slack=0.02)
    assert_law([(0.0, float(x.mean()), float(x.std()))], law, slack=0.02)


@pytest.mark.parametrize("path", ["flow", "ve"])
@pytest.mark.parametrize(("name", "params"), STOCHASTIC)
def test_marginals_of_a_gaussian(name, params, path):
    assert_gaussian(name, params, path)


@pytest.mark.parametrize("check", [assert_constant, assert_gaussian])
def test_noise_of_another_path_is_caught(check):
    check(VENoise(), {}, "ve")
    with pytest.raises(AssertionError, match="at 0"):
        check(VENoise(), {}, "flow")


def test_lcm_is_exact_for_a_consistency_function():
    field = Gaussian()
    law = lambda s: ((1 - s) * field.mean, math.sqrt(field.variance(s)))  # noqa: E731
    for steps in (4, 12):
        x, seen = run("lcm", {}, lambda x, s: field.flow(x, s, 0.0), "flow", grid("flow", steps))
        assert_law([*seen, (0.0, float(x.mean()), float(x.std()))], law)


@pytest.mark.parametrize(("name", "params", "same", "same_params"), DETERMINISTIC)
def test_without_noise_it_is_the_deterministic_form(name, params, same, same_params):
    field, x = Mixture(), X[:, :50]
    sampler = gatekit.list_samplers()[name]
    assert not sampler(sampler.Params(**params)).stochastic
    ours = gatekit.sample(field, x, grid("flow", 9), sampler=name, seed=1, **params)
    theirs = gatekit.sample(field, x, grid("flow", 9), sampler=same, **same_params)
    assert torch.allclose(ours, theirs, atol=1e-10)


def test_scales_of_er_sde_are_strengths_of_the_reverse_sde():
    """phi = v^(1 + eta): the same step, written two ways."""
    field, x = Mixture(), X[:, :50]
    for scale, eta in (("sde", 1.0), ("sde_2", 0.5)):
        a, b = (
            gatekit.sample(field, x, grid("flow", 9), seed=5, sampler=s, coordinate="lam", **p)
            for s, p in (("er_sde", {"scale": scale}), ("dpmpp_3m_sde", {"eta": eta}))
        )
        assert torch.allclose(a, b, atol=1e-9)


def test_sa_solver_without_noise_is_unipc_with_exact_weights():
    field, x = Mixture(), X[:, :50]
    sigmas = grid("flow", 9)[1:]
    for order in (1, 2, 3):
        a = gatekit.sample(field, x, sigmas, sampler="sa_solver", tau=0.0, order=order)
        b = gatekit.sample(field, x, sigmas, sampler="unipc", weights="exact", order=order)
        assert torch.allclose(a, b, atol=1e-10)


def test_sa_solvers_corrector_keeps_the_noise():
    """On a fine grid D barely changes, so neither does x: another noise would show."""
    field, x = Mixture(), X[:, :200]
    sigmas = [0.5, 0.49999, 0.49998, 0.49997]
    moved = gatekit.sample(field, x, sigmas, sampler="sa_solver")
    plain = gatekit.sample(field, x, sigmas, sampler="euler_ancestral", rule="sde")
    assert float((moved - plain).abs().max()) < 2e-6  # 3e-2 with another noise


def test_sa_solver_takes_noise_inside_its_window_only():
    field, x = Mixture(), X[:, :20]
    sigmas = [0.9, 0.7, 0.5, 0.3, 0.1]
    ends = [
        gatekit.sample(field, x, sigmas, sampler="sa_solver", seed=s, sigma_low=0.4, sigma_high=0.8)
        for s in (1, 2)
    ]
    none = gatekit.sample(field, x, sigmas, sampler="sa_solver", seed=1, sigma_high=0.05)
    assert not ends[0].equal(ends[1])
    assert torch.allclose(
        none, gatekit.sample(field, x, sigmas, sampler="sa_solver", tau=0.0), atol=1e-12
    )


@pytest.mark.parametrize(("name", "params"), [("sa_solver", {}), ("dpmpp_3m_sde", {})])
def test_closing_a_boundary_of_equal_models_changes_nothing(name, params):
    """Two names of one field: ``close`` must not correct what is corrected on entry again."""
    field, x, sigmas = Mixture(), X[:, :20], grid("flow", 9)
    cls = gatekit.list_samplers()[name]

    def split(policy):
        sampler = cls(cls.Params(**params))
        parts = [
            FunctionPhase(field, sampler, s, field=n, history=policy)
            for n, s in (("a", sigmas[:5]), ("b", sigmas[4:]))
        ]
        return trace_phases(parts, x, seed=2).x

    assert torch.allclose(split("close"), split("carry"), atol=1e-10)


@pytest.mark.parametrize("name", ["dpmpp_sde", "seeds_2", "seeds_3"])
def test_noise_of_the_stages_is_that_of_one_solution(name):
    """Constant D: x' given the inner state is the transfer from there, plus independent noise."""
    field, inner = Constant(0.0), []

    def denoise(x, sigma):
        inner.append((sigma, x))
        return field(x, sigma)

    s, to = 0.9, 0.4
    end = gatekit.sample(denoise, 0.9 * X, [s, to], sampler=name)
    for at, x in inner[1:]:
        ratio = (to / at) * ((1 - at) / at) / ((1 - to) / to)  # (s'/s) (y/y')
        rest = end - ratio * x
        assert abs(float((rest * x).mean())) < 4.5 * float(rest.std() * x.std()) / NUMBER**0.5
    assert len(inner) == (3 if name == "seeds_3" else 2)


def test_runs_differ_by_seed_and_steps_descend():
    assert all(a > b for p in ("flow", "ve") for a, b in pairwise(grid(p, 9)))
    ends = [
        gatekit.sample(Mixture(), X[:, :5], [1, 0.5, 0], sampler="seeds_3", seed=s) for s in (1, 2)
    ]
    assert not ends[0].equal(ends[1])
