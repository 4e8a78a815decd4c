import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gatekit
from gatekit.errors import InputError
from gatekit.functional import make_params
from gatekit.registry import registry
from gatekit.testing import Mixture
from gatekit_basics.curvature import Curvature, CurvatureParams, log_profile, sigma_of, theta
from gatekit_basics.curvature_command import Bends, thinned

FLAT = {"profile": [(1.0, 1.0), (0.0, 1.0)], "sigma_min": 0.05}
GRIDS = {"y_uniform": {}, "lam_uniform": {}, "theta_uniform": {}, "tangent": {}, "curvature": FLAT}


def grid(name, **params):
    cls = registry().get("grid", name)
    return cls(make_params(cls, {**GRIDS[name], **params}, name))


@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=30)
@given(steps=st.integers(1, 50))
def test_whole_runs(name, steps):
    sigmas = grid(name)(steps)
    assert (len(sigmas), sigmas[0], sigmas[-1]) == (steps + 1, 1.0, 0.0)
    assert all(a > b for a, b in pairwise(sigmas))


@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=30)
@given(
    st.integers(1, 20),
    st.lists(st.integers(0, 200).map(lambda i: i / 200), min_size=2, max_size=2, unique=True),
)
def test_stretches_keep_their_ends(name, steps, ends):
    low, high = sorted(ends)
    sigmas = grid(name).stretch(high, low, steps)
    assert (sigmas[0], sigmas[-1], len(sigmas)) == (high, low, steps + 1)


@pytest.mark.parametrize(
    ("name", "coordinate"),
    [
        ("y_uniform", lambda s: (1 - s) / s),
        ("lam_uniform", lambda s: math.log((1 - s) / s)),
        ("theta_uniform", theta),
    ],
)
def test_even_in_its_coordinate(name, coordinate):
    sigmas = grid(name).stretch(0.9, 0.2, 7)
    gaps = [coordinate(b) - coordinate(a) for a, b in pairwise(sigmas)]
    assert gaps == pytest.approx([gaps[0]] * 7)


def test_tangent_is_steepest_in_its_middle_and_straight_without_slope():
    gaps = [a - b for a, b in pairwise(grid("tangent", slope=6, middle=0.5)(20))]
    assert gaps.index(max(gaps)) in (9, 10) and gaps[0] == pytest.approx(gaps[-1])
    assert grid("tangent", slope=0)(4) == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))


def test_a_flat_profile_is_even_in_theta():
    flat = grid("curvature").stretch(1.0, 0.1, 9)
    assert flat == pytest.approx(grid("theta_uniform").stretch(1.0, 0.1, 9), abs=1e-6)


@given(st.lists(st.floats(0.05, 20.0), min_size=3, max_size=8), st.integers(2, 25))
@settings(max_examples=30)
def test_the_integral_of_the_density_is_shared_equally(densities, steps):
    n = len(densities)
    profile = [(1.0 - i / (n - 1), d) for i, d in enumerate(densities)]
    curvature = Curvature(CurvatureParams(profile=profile))
    nodes = [theta(s) for s in curvature.stretch(1.0, 0.01, steps)]

    def area(low, high):
        points = [low + (high - low) * (i + 0.5) / 400 for i in range(400)]
        return sum(curvature.density(p) for p in points) * (high - low) / 400

    areas = [area(a, b) for a, b in pairwise(nodes)]
    assert areas == pytest.approx([sum(areas) / steps] * steps, rel=0.02)


@pytest.mark.parametrize(
    "profile",
    [[(1.0, 1.0)], [(0.5, 1.0), (0.9, 1.0)], [(1.0, 1.0), (0.0, 0.0)], [(2.0, 1.0), (0.0, 1.0)]],
)
def test_a_profile_that_is_none_is_refused(profile):
    with pytest.raises(gatekit.InputError):
        make_params(Curvature, {"profile": profile}, "sigmas")


def test_bends_are_second_derivatives_and_span_no_boundary():
    field = lambda x, sigma: x * 0 + theta(sigma) ** 2  # noqa: E731  (D'' = 2 everywhere)
    jump = lambda x, sigma: x * 0 + 7 + theta(sigma) ** 2  # noqa: E731
    sigmas = [sigma_of(0.05 * i) for i in range(25)]
    bends = Bends()
    gatekit.sample_phases(
        [
            gatekit.FunctionPhase(field, sampler="euler", sigmas=sigmas[:12], name="a"),
            gatekit.FunctionPhase(jump, sampler="euler", sigmas=sigmas[11:], name="b"),
        ],
        torch.zeros(1, 4, dtype=torch.float64),
        observers=[bends],
    )
    assert len(bends.values) == 24 - 4
    assert bends.values == pytest.approx([2.0] * 20, rel=1e-6)


def test_a_grid_from_the_models_own_curvature_beats_wans(request):
    field = Mixture(weights=(0.5, 0.5), means=(-1.0, 1.0), stds=(0.1, 0.1))
    x, other = (
        torch.randn(512, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(s))
        for s in (0, 1)
    )
    shifted = registry().get("grid", "shifted_linear")()
    bends = Bends()
    gatekit.sample(field, other, shifted(100), sampler="unipc", observers=[bends])
    profile = thinned(bends.sigmas, log_profile(bends.sigmas, bends.values))
    own = Curvature(CurvatureParams(profile=profile, sigma_min=0.02))
    truth = gatekit.sample(field, x, shifted(800), sampler="unipc", coordinate="theta")

    def error(sigmas):
        y = gatekit.sample(field, x, sigmas, sampler="unipc", coordinate="theta")
        return float((y - truth).square().mean().sqrt())

    assert error(own(20)) < 0.5 * error(shifted(20))


def test_restart_goes_up_and_down_again():
    restart = registry().get("strategy", "restart")
    params = make_params(restart, {"times": 2, "low": 0.35, "high": 0.8}, "strategy")
    phase = restart((1.0, 0.8, 0.5, 0.3, 0.0), params)
    path = [phase.intervals()[0][0], *(to for _, to in phase.intervals())]
    assert path == [1.0, 0.8, 0.5, 0.3, 0.8, 0.5, 0.3, 0.8, 0.5, 0.3, 0.0]


def test_restart_wants_low_below_high():
    restart = registry().get("strategy", "restart")
    with pytest.raises(InputError, match="'low' must be below 'high'"):
        make_params(restart, {"low": 0.7, "high": 0.6}, "strategy")


def test_restart_as_a_phase_keeps_the_law_of_its_target():
    field = Mixture()
    grid_ = registry().get("grid", "shifted_linear")()(40)
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    records = []
    y = gatekit.sample_phases(
        [
            gatekit.FunctionPhase(
                field,
                sampler="unipc",
                sigmas=grid_,
                strategy="restart",
                strategy_params={"low": 0.3, "high": 0.8, "times": 1},
            )
        ],
        x,
        observers=[lambda state, record, denoised: records.append(record)],
    )
    mean = sum(w * m for w, m in zip(field.weights, field.means, strict=True))
    parts = zip(field.weights, field.means, field.stds, strict=True)
    variance = sum(w * (s**2 + m**2) for w, m, s in parts) - mean**2
    assert sum(r.sigma_next > r.sigma for r in records) == 1
    assert float(y.mean()) == pytest.approx(mean, abs=0.03)
    assert float(y.std()) == pytest.approx(variance**0.5, rel=0.03)


def test_the_command_writes_a_schedule_that_runs(project, monkeypatch, capsys):
    from gatekit.cli import call

    monkeypatch.chdir(project)
    line = ["curvature", "fake.yaml", "-p", "x", "-o", "own.yaml", "--steps", "24"]
    assert call(line) == 0 and capsys.readouterr().out == "own.yaml\n"
    plan = gatekit.resolve(gatekit.load_schedule("own.yaml"))
    assert plan.schedule.sigmas.use == "curvature" and len(plan.run_sigmas) == 9
    assert gatekit.run(plan, gatekit.Inputs(prompt="x")).video.ndim == 4
    changed = [*line[:5], "changed.yaml", *line[6:], "--set", "phases.high.sampler=heun"]
    assert call(changed) == 0 and capsys.readouterr().out == "changed.yaml\n"
    assert "\n# with --set phases.high.sampler=heun\n" in (project / "changed.yaml").read_text()
    assert call(line) == 2 and "exists" in capsys.readouterr().err
    line[5] = "nowhere/own.yaml"
    assert call(line) == 2 and "-o: no such folder" in capsys.readouterr().err
