"""``gatekit check-profile``: what is drawn, how it is ranked, and that nothing is run twice."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gatekit import InputError, Inputs, load_schedule, resolve, run
from gatekit_research.profile.check import Checked, drawn, ranks, spearman
from gatekit_research.propose.problem import Option, Problem, Proposal

_DRAW = random.Random(0)
AMPLIFIED = [(_DRAW.random() + r, r) for r in (0.1 * _DRAW.random() for _ in range(24))]


@pytest.fixture
def profiled(study, gatekit):
    line = ("profile", "fake.yaml", "--variants", "near", "far", "soft", "--prompts", "p.txt")
    assert gatekit(*line, "-o", "o.json")[0] == 0
    return study


def problem(steps=8, border=3):
    high = {key: Option(e, 0.0, 1.0, 1.0) for key, e in {"a": 0.0, "b": 1.0, "c": 2.0}.items()}
    low = {key: Option(e, 0.0, 1.0, 1.0) for key, e in {"d": 0.0, "e": 1.0}.items()}
    options = [high if i < border else low for i in range(steps)]
    return Problem(options, [(0, border), (border, steps)], dict.fromkeys("abcde", 1))


def test_ranks_and_spearman():
    assert ranks([3.0, 1.0, 2.0, 2.0]) == [4.0, 1.0, 2.5, 2.5]
    assert spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1.0)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 2, 3, 4, 5], [2, 1, 4, 3, 5]) == pytest.approx(0.8)  # 1 - 6 * 4/(5 * 24)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_schedules_are_drawn_within_the_experts_ranges():
    found = drawn(problem(), 30, 3, seed=0)
    assert len({p.pieces for p in found}) == 30 and found == drawn(problem(), 30, 3, seed=0)
    assert found != drawn(problem(), 30, 3, seed=1)
    for one in found:
        assert len(one.pieces) == 3 and one.error > 0
        assert 3 in [start for start, _, _ in one.pieces]
        for start, end, key in one.pieces:
            assert (key in "abc") == (start < 3) == (end <= 3)
    assert {len({k for _, _, k in p.pieces if k in "abc"}) for p in found} == {1, 2}


def test_too_many_are_not_drawn():
    # 3 steps of high cut in two (2 x 6 x 2) and 5 of low (4 x 2 x 3): 48 of three phases
    assert len(drawn(problem(), 48, 3, seed=0)) == 48
    with pytest.raises(InputError, match="ask for at most 48"):
        drawn(problem(), 49, 3, seed=0)
    with pytest.raises(InputError, match="not so many schedules of 1 phases"):
        drawn(problem(), 3, 1, seed=0)


def test_ratios():
    proposals = drawn(problem(), 5, 3, seed=0)
    measured = [
        p.error * share for p, share in zip(proposals, (0.2, 0.3, 0.4, 0.5, 0.6), strict=True)
    ]
    low, median, high = Checked(proposals, measured, 1).ratios
    assert (low, median, high) == pytest.approx((0.24, 0.4, 0.56))


def test_the_weight_of_risk_is_found_on_the_other_half():
    proposals = [Proposal((), e, r, 0.0, 0.0, 0.0, 0, 0) for e, r in AMPLIFIED]
    found = Checked(proposals, [e + 8 * r for e, r in AMPLIFIED], 1)
    assert found.rank("error") < 0.9
    weight, rank = found.weigh()
    assert 4 <= weight <= 16 and rank > 0.9
    # Where risk says nothing, the least weight that is as good is none.
    plain = Checked([replace(p, risk=0.0) for p in proposals], [e for e, _ in AMPLIFIED], 1)
    assert plain.weigh() == (0.0, 1.0)
    # Noise has no weight that holds on the other half.
    noise = random.Random(3)
    nothing = Checked(proposals, [noise.random() for _ in proposals], 1).weigh()
    assert nothing is not None and nothing[1] < 0.5
    assert Checked(proposals[:5], [1.0] * 5, 1).weigh() is None


def test_it_measures_the_change_of_the_final_latent(profiled, gatekit):
    code, out, _ = gatekit("check-profile", "o.json", "--schedules", 5, "--phases", 2, "--json")
    rows = json.loads(out)["schedules"]
    assert code == 0 and len(rows) == 5  # three of high by two of low, the reference left out
    row = max(rows, key=lambda row: row["E"])
    (_, _, high), (_, _, low) = row["pieces"]
    changes = {"phases.high.variant": high, "phases.low.variant": low}
    errors = []
    for prompt in ("a cat", "a dog on a hill"):
        a, b = (
            run(resolve(load_schedule("fake.yaml", over)), Inputs(prompt=prompt, seed=1000)).latent
            for over in ({}, changes)
        )
        errors.append(float((b - a).square().mean().sqrt()))
    assert row["measured"] == pytest.approx(sum(errors) / 2, rel=1e-4)


def test_errors_that_add_up_are_ranked(profiled, gatekit):
    code, out, _ = gatekit("check-profile", "o.json", "--schedules", 12, "--json")
    assert code == 0 and json.loads(out)["spearman"]["error"] > 0.9


def test_nothing_is_run_twice(profiled, fake, gatekit):
    first = gatekit("check-profile", "o.json", "--schedules", 5)
    assert first[0] == 0 and first[1].startswith(
        "5 random schedules of 3 phases, 2 runs of 8 steps"
    )
    fake.LOG.clear()
    assert gatekit("check-profile", "o.json", "--schedules", 5) == first
    assert not [line for line in fake.LOG if line.startswith("load")]
    gatekit("check-profile", "o.json", "--schedules", 6)
    assert [line for line in fake.LOG if line.startswith("load")]


def test_prompts_of_its_own(profiled, gatekit):
    Path("one.txt").write_text("a bird")
    _, out, _ = gatekit("check-profile", "o.json", "--schedules", 4, "--prompts", "one.txt")
    assert "1 runs of 8 steps" in out
    code, out, err = gatekit("check-profile", "o.json", "--schedules", 4, "--prompts", "gone.txt")
    assert code == 2 and not out and "no readable file of prompts" in err
