"""The search against every choice there is, and budgets that nothing meets."""

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit import InputError
from gatekit_research.propose.budget import answer, front_of, read_budget
from gatekit_research.propose.problem import Option, Problem, proposal
from gatekit_research.propose.search import pareto

KEYS = {"high": ("a", "b", "c"), "low": ("d", "e")}


@st.composite
def problems(draw):
    """Two experts over a few steps, one of them perhaps in two stretches."""
    high, low = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    share = st.integers(0, 8).map(lambda n: n / 8)
    cost = st.integers(1, 16).map(float)
    options = []
    for i in range(high + low):
        keys = KEYS["high" if i < high else "low"]
        row = {}
        for key in keys:
            error = draw(share)
            row[key] = Option(error, error if i < 2 else 0.0, draw(cost), draw(cost))
        options.append(row)
    stretches = [(0, high), (high, high + low)]
    if high > 2 and draw(st.booleans()):
        stretches = [(0, 1), (1, high), (high, high + low)]
    peaks = {key: 10 + i for i, key in enumerate("abcde")}
    return Problem(options, stretches, peaks, draw(st.sampled_from([0.0, 0.5, 3.0])))


def every(problem, phases):
    """All proposals of at most so many phases, by trying each variant at each step."""
    borders = {start for start, _ in problem.stretches}
    for keys in product(*(sorted(row) for row in problem.options)):
        starts = [i for i in range(len(keys)) if i == 0 or i in borders or keys[i] != keys[i - 1]]
        if len(starts) <= phases:
            ends = [*starts[1:], len(keys)]
            yield proposal(problem, [(a, b, keys[a]) for a, b in zip(starts, ends, strict=True)])


limit = st.dictionaries(
    st.sampled_from(["bits", "seconds", "error"]), st.integers(1, 60).map(float), max_size=2
)


limit_given = st.dictionaries(
    st.sampled_from(["bits", "seconds", "error"]),
    st.integers(1, 60).map(float),
    min_size=1,
    max_size=2,
)


@settings(max_examples=60)
@given(problems(), st.integers(2, 5), limit, st.sampled_from([None, 11, 13]), st.booleans())
def test_nothing_better_is_overlooked(problem, phases, limits, vram, few):
    limits |= {"vram": vram} if vram is not None else {}
    limits |= {"switches": 1} if few else {}
    found = pareto(problem, phases, limits, ["bits"])
    fit = [p for p in every(problem, phases) if p.meets(limits)]
    assert bool(found) == bool(fit)
    if fit:
        assert all(p.meets(limits) and len(p.pieces) <= phases for p in found)
        wanted = [(p.objective, p.bits) for p in front_of(fit, "bits")]
        got = [(p.objective, p.bits) for p in front_of(found, "bits")]
        assert [v for pair in got for v in pair] == pytest.approx([v for p in wanted for v in p])


@settings(max_examples=40)
@given(problems(), st.integers(3, 4), limit_given, st.sampled_from([None, 11]))
def test_the_nearest_budget_that_does_does(problem, phases, limits, vram):
    limits |= {"vram": vram} if vram is not None else {}
    if any(p.meets(limits) for p in every(problem, phases)):
        chosen = answer(problem, limits, phases).chosen
        assert chosen.meets(limits)
        return
    with pytest.raises(InputError) as refused:
        answer(problem, limits, phases)
    said = re.findall(r"(\w+)=([\d.e+-]+(?:MiB)?)(?= or|,|$)", refused.value.remedy)
    for kind, value in said:
        raised = limits | read_budget([f"{kind}={value}"])
        assert any(p.meets(raised) for p in every(problem, phases))
        # and no limit of that kind a little lower does
        if kind in ("bits", "seconds", "error"):
            lower = limits | {kind: raised[kind] * 0.998 - 1e-6}
            assert not any(p.meets(lower) for p in every(problem, phases))
    if not said:
        assert "raise several" in refused.value.remedy


def test_risk_moves_the_coarse_variant_out_of_the_commit_window():
    """Equal errors in both halves; with w the coarse variant serves the second."""
    early = {"fine": Option(0.0, 0.0, 2.0, 1.0), "coarse": Option(0.1, 0.1, 1.0, 1.0)}
    late = {"fine": Option(0.0, 0.0, 2.0, 1.0), "coarse": Option(0.12, 0.0, 1.0, 1.0)}
    for weight, first in ((0.0, "coarse"), (1.0, "fine")):
        problem = Problem([early, late], [(0, 2)], {"fine": 2, "coarse": 1}, weight)
        chosen = answer(problem, {"bits": 3.0}, 2).chosen
        assert chosen.pieces[0][2] == first
    chosen = answer(problem, {"error": 0.12}, 2).chosen
    assert (chosen.bits, chosen.error) == (3.0, 0.12)  # the fewest bits within the error
    assert answer(problem, {"vram": 1}, 2).chosen.pieces == ((0, 2, "coarse"),)


def test_budgets_are_read():
    assert read_budget(["bits=5.0", "vram=1.5GiB", "switches=1", "error=2e-2"]) == {
        "bits": 5.0,
        "vram": 1.5 * 2**30,
        "switches": 1.0,
        "error": 0.02,
    }


@pytest.mark.parametrize("text", ["bits", "bit=5", "bits=x", "bits=5GiB", "vram=5apples", "bits=."])
def test_budgets_that_are_none(text):
    with pytest.raises(InputError, match=r"--budget: .*such as"):
        read_budget([text])
    with pytest.raises(InputError, match="at most once"):
        read_budget(["bits=5", "bits=6"])
