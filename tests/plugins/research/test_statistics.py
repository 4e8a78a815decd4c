"""Statistics against known truth: worked numbers, exact distributions, coverage by simulation."""

import math

import numpy
import pytest
from scipy import stats

from gatekit_research import statistics, student


@pytest.mark.parametrize("df", [1, 2, 5, 30, 1000])
@pytest.mark.parametrize("p", [0.005, 0.2, 0.5, 0.8, 0.975, 0.9995])
def test_quantiles_of_t(p, df):
    assert student.quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=3e-3, abs=1e-9)


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (5, 0), (8, 2), (2, 8), (7, 7), (30, 12)])
def test_mcnemar_is_the_exact_binomial(gained, lost):
    wanted = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert statistics.mcnemar(gained, lost) == pytest.approx(wanted)
    values = [1.0] * gained + [-1.0] * lost + [0.0] * 3
    assert statistics.sign_test(values) == pytest.approx(wanted)


def test_flipping_signs_is_mcnemar_where_each_prompt_has_one_result():
    values = [1.0] * 9 + [-1.0] * 2 + [0.0] * 5
    got = statistics.sign_flip_test(values, range(len(values)))
    assert got == pytest.approx(statistics.mcnemar(9, 2))


def test_flipping_signs_at_random_agrees_with_all_patterns(monkeypatch):
    values = list(numpy.random.default_rng(1).normal(0.5, 1.0, 12))
    exact = statistics.sign_flip_test(values, range(12))
    monkeypatch.setattr(statistics, "EXACT", 0)
    assert statistics.sign_flip_test(values, range(12)) == pytest.approx(exact, abs=0.02)


def test_seeds_of_one_prompt_are_one_piece_of_evidence():
    """Four prompts can at best give p = 2 / 2^4, whatever the number of seeds."""
    values, clusters = [1.0] * 40, [i % 4 for i in range(40)]
    assert statistics.sign_flip_test(values, clusters) == pytest.approx(2 / 16)


def test_false_alarms_are_as_rare_as_stated():
    rng = numpy.random.default_rng(2)
    hits = 0
    for _ in range(400):
        values = (rng.normal(0, 1, 9)[:, None] + rng.normal(0, 0.3, (9, 3))).ravel()
        hits += statistics.sign_flip_test(list(values), [i // 3 for i in range(27)]) <= 0.05
    assert 0.02 <= hits / 400 <= 0.085


def test_holm_on_worked_numbers():
    """0.01 * 4, 0.02 * 3 (carried up), 0.03 * 2, 0.005 first: the textbook's four."""
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    found = statistics.holm([0.02, math.nan, 0.04])
    assert found[0] == pytest.approx(0.04) and math.isnan(found[1])
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("method", "groups"), [("percentile", 8), ("percentile", 30), ("bca", 30)])
def test_intervals_cover_the_truth_as_often_as_they_say(method, groups):
    """Clusters that differ more than their members: treating members as independent fails."""
    rng = numpy.random.default_rng(3)
    clusters = [i // 4 for i in range(4 * groups)]
    covered = naive = 0
    runs = 300
    for run in range(runs):
        values = (0.7 + rng.normal(0, 1, groups)[:, None] + rng.normal(0, 0.5, (groups, 4))).ravel()
        low, high = statistics.bootstrap(
            list(values), clusters, method=method, resamples=800, seed=run
        )
        covered += low <= 0.7 <= high
        low, high = statistics.bootstrap(list(values), range(len(values)), resamples=800, seed=run)
        naive += low <= 0.7 <= high
    assert 0.91 <= covered / runs <= 0.985
    assert naive / runs < 0.85


def test_few_clusters_make_bca_too_short():
    """Why it is not the default; the expanded percentile interval holds there (above)."""
    rng = numpy.random.default_rng(3)
    runs, covered = 300, 0
    for run in range(runs):
        values = 0.7 + rng.normal(0, 1, 8)
        low, high = statistics.bootstrap(
            list(values), range(8), method="bca", resamples=800, seed=run
        )
        covered += low <= 0.7 <= high
    assert 0.8 < covered / runs < 0.92


def test_unequal_clusters_are_weighed_by_their_members():
    values, clusters = [1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]
    low, high = statistics.bootstrap(values, clusters, resamples=2000)
    assert low == 1.0 and high == 5.0
    assert all(math.isnan(end) for end in statistics.bootstrap([1.0, 2.0], ["a", "a"]))


def test_pairs_are_those_that_both_arms_have():
    one = {("p", 0): 3.0, ("p", 1): 4.0, ("q", 0): 1.0}
    found = statistics.paired(one, {("p", 0): 1.0, ("q", 0): 2.0, ("r", 0): 9.0})
    assert found.values == (2.0, -1.0) and found.clusters == ("p", "q")
    assert found.mean == 0.5 and found.groups == 2


def test_the_smallest_effect_is_found_as_often_as_stated():
    """Of effects of just that size, a t test over cluster means finds four in five."""
    rng = numpy.random.default_rng(4)
    groups, true_sd = 12, 1.0
    error = true_sd / math.sqrt(groups)
    df = groups - 1
    effect = (student.quantile(0.975, df) + student.quantile(0.8, df)) * error
    found = [
        stats.ttest_1samp(rng.normal(effect, true_sd, groups), 0.0).pvalue < 0.05
        for _ in range(2000)
    ]
    assert numpy.mean(found) == pytest.approx(0.8, abs=0.04)
    sizes = [
        statistics.smallest_effect(list(rng.normal(0, true_sd, groups)), range(groups))
        for _ in range(500)
    ]
    assert numpy.mean(sizes) == pytest.approx(effect, rel=0.05)
    assert math.isnan(statistics.smallest_effect([1.0], ["a"]))
    assert math.isnan(statistics.smallest_effect([0.0, 0.0], ["a", "b"]))
