"""Steps shared between phases: by shares, or by a rule."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekit import ScheduleError, load_schedule, resolve
from gatekit.allotment import allotted, lengths
from gatekit.path import RectifiedFlow, VarianceExploding
from gatekit.registry import registry


def planned(project, *overrides):
    return resolve(load_schedule(project / "fake.yaml", list(overrides)))


def counts(plan):
    return [len(phase.sigmas) - 1 for phase in plan.phases]


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=6), st.integers(0, 60))
def test_every_step_goes_somewhere(weights, more):
    total = len(weights) + more
    steps = allotted(total, weights)
    assert sum(steps) == total and min(steps) >= 1
    for count, weight in zip(steps, weights, strict=True):
        quota = total * weight / math.fsum(weights)
        assert count >= math.floor(quota) - len(weights)
        if all(total * w / math.fsum(weights) >= 1 for w in weights):
            assert abs(count - quota) < 1


def test_largest_remainders():
    assert allotted(20, [0.25, 0.35, 0.4]) == (5, 7, 8)
    assert allotted(10, [1, 1, 1]) == (4, 3, 3)
    assert allotted(5, [0.001, 1, 1]) == (1, 2, 2)
    assert allotted(3, [1, 100, 1]) == (1, 1, 1)


def test_shares_in_a_schedule(project):
    plan = planned(project, "phases.high.share=3", "phases.low.share=1", "phases.high.until=0.8")
    assert counts(plan) == [6, 2]
    assert plan.phases[0].sigmas[-1] == plan.phases[1].sigmas[0] == 0.8
    assert "8 steps shared by shares 3 : 1: 6 + 2" in plan.explain()


def test_by_length(project):
    plan = planned(project, "sigmas.allot=theta", "phases.high.until=0.5", "sigmas.steps=10")
    assert counts(plan) == [5, 5]  # theta is pi/4 at 0.5
    assert "10 steps shared by their length in theta: 5 + 5" in plan.explain()
    path, grid = RectifiedFlow(), registry().get("grid", "shifted_linear")()
    high, low = lengths("lam", [1.0, 0.5, 0.0], grid, path)
    assert high == pytest.approx(low) and high == pytest.approx(math.log(49))


def test_lam_of_a_path_that_has_no_end():
    grid = registry().get("grid", "shifted_linear")()
    found = lengths("lam", [80.0, 10.0, 1.0, 0.02, 0.0], grid, VarianceExploding())
    assert found[:3] == pytest.approx([math.log(8), math.log(10), math.log(50)])


def test_by_the_grid_itself(project):
    whole = planned(project, "sigmas.steps=40", "phases.high.until=0.7")
    shared = planned(project, "sigmas.steps=40", "phases.high.until=0.7", "sigmas.allot=grid")
    assert all(abs(a - b) <= 1 for a, b in zip(counts(whole), counts(shared), strict=True))
    assert "shared by the steps of a fine grid" in shared.explain()


def test_by_equal_curvature(project):
    """Over a curvature grid the rule ``grid`` shares the measured curvature equally."""
    flat = "[[0.99, 1.0], [0.01, 1.0]]"
    bent = "[[0.99, 9.0], [0.701, 9.0], [0.699, 1.0], [0.01, 1.0]]"
    found = [
        counts(
            planned(
                project,
                f"sigmas={{use: curvature, steps: 20, allot: grid, profile: {profile}}}",
                "phases.high.until=0.7",
            )
        )
        for profile in (flat, bent)
    ]
    assert sum(found[0]) == sum(found[1]) == 20
    assert found[1][0] > 1.8 * found[0][0]


def test_a_phase_may_have_its_own_grid(project):
    plan = planned(
        project, "sigmas.allot=theta", "phases.low.sigmas={use: karras, sigma_min: 0.02}"
    )
    assert sum(counts(plan)) == 8
    assert plan.phases[1].sigmas[-2] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["phases.high.share=0.5"], "phase 'low' has no share, but another phase has one"),
        (
            ["phases.high.share=1", "phases.low.share=1", "sigmas.allot=lam"],
            "phases[0].share: steps are shared both by a rule and by",
        ),
        (["sigmas.allot=lam", "sigmas.steps=null"], "sigmas: steps are to be shared, but their"),
        (["sigmas.allot=lam", "sigmas.steps=1"], "sigmas.steps: 2 phases need at least a step"),
        (["sigmas.allot=lma"], "sigmas.allot: is none of the known values (got 'lma'); did you"),
        (["phases.high.share=0", "phases.low.share=1"], "phases[0].share: should be greater than"),
        (["sigmas.allot=lam", "phases.high.until={step: 3}"], "needs one grid for the whole run"),
        (
            ["sigmas={use: explicit, values: [1, 0.5, 0], steps: 2, allot: grid}"],
            "sigmas.allot: grid 'explicit' has 2 steps",
        ),
    ],
)
def test_errors_have_a_place(project, overrides, expected):
    with pytest.raises(ScheduleError) as caught:
        planned(project, *overrides)
    assert expected in str(caught.value)


def test_the_plan_of_settle(project):
    plan = planned(project, "phases.high.strategy={use: settle, threshold: 0.1}", "sigmas.steps=20")
    text = plan.explain()
    assert "settle: at most" in text and "the next phase takes those left out" in text
    assert not plan.exact and plan.to_json()["phases"][0]["remark"]
    rows = plan.table()
    assert all(a.sigma_next == b.sigma for a, b in pairwise(rows))
