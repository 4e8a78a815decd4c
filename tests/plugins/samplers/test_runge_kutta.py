"""Tableaux satisfy Butcher's order conditions; the adaptive pairs keep what they are asked for."""

from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, pairwise

import pytest
import torch

import gatekit
from gatekit import NumericsError
from gatekit.functional import FunctionPhase, trace_phases
from gatekit.testing import Constant, Mixture
from gatekit_samplers.runge_kutta import DOPRI5, RALSTON3, TABLEAUX

FIELD = Mixture()
X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@cache
def trees(order):
    """Rooted trees with ``order`` nodes, as sorted tuples of subtrees."""
    if order == 1:
        return ((),)
    smaller = [(t, n) for n in range(1, order) for t in trees(n)]
    found = {
        tuple(sorted(t for t, _ in chosen))
        for count in range(1, order)
        for chosen in combinations_with_replacement(smaller, count)
        if sum(n for _, n in chosen) == order - 1
    }
    return tuple(sorted(found))


def size(tree):
    return 1 + sum(size(t) for t in tree)


def density(tree):
    gamma = size(tree)
    for t in tree:
        gamma *= density(t)
    return gamma


def stages(tree, rows):
    """prod over subtrees of sum_j a_ij stage_j, for each stage i."""
    values = [1.0] * len(rows)
    for t in tree:
        inner = stages(t, rows)
        values = [
            v * sum(a * b for a, b in zip(row, inner, strict=False))
            for v, row in zip(values, rows, strict=True)
        ]
    return values


def conditions(rows, weights, order):
    """Largest violation of the conditions of this order."""
    gaps = []
    for tree in trees(order):
        phi = sum(b * v for b, v in zip(weights, stages(tree, rows), strict=True))
        gaps.append(abs(phi - float(Fraction(1, density(tree)))))
    return max(gaps)


def test_there_are_as_many_trees_as_cayley_counted():
    assert [len(trees(n)) for n in range(1, 7)] == [1, 1, 2, 4, 9, 20]


@pytest.mark.parametrize("t", TABLEAUX, ids=lambda t: t.name)
def test_order_conditions(t):
    rows = [(), *t.rows]
    for node, row in zip(t.nodes, rows, strict=True):
        assert sum(row) == pytest.approx(node, abs=1e-12)
    assert [len(row) for row in rows] == list(range(len(t.nodes)))
    for order in range(1, t.order + 1):
        assert conditions(rows, t.weights, order) < 1e-12
    assert conditions(rows, t.weights, t.order + 1) > 1e-5


@pytest.mark.parametrize("t", [RALSTON3, DOPRI5], ids=lambda t: t.name)
def test_embedded_method_is_of_one_order_less(t):
    rows = [(), *t.rows, t.weights]
    low = [b - e for b, e in zip((*t.weights, 0.0), t.error, strict=True)]
    for order in range(1, t.order):
        assert conditions(rows, low, order) < 1e-12
    assert conditions(rows, low, t.order) > 1e-5


def adaptive(name, tolerance, field=FIELD, sigmas=(0.9, 0.2)):
    phase = FunctionPhase(
        field, name, sigmas, field="one", params={"rtol": tolerance, "atol": tolerance}
    )
    return trace_phases([phase], X)


@pytest.mark.parametrize("name", ["rk45", "rk23"])
def test_error_follows_the_tolerance(name):
    truth, errors, counts = FIELD.flow(X, 0.9, 0.2, steps=1000), [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        run = adaptive(name, tolerance)
        errors.append(float((run.x - truth).abs().max()))
        counts.append(run.nfe)
        assert errors[-1] < 20 * tolerance
        assert run.sigmas[0] == 0.9 and run.sigmas[-1] == 0.2
        assert all(a > b for a, b in pairwise(run.sigmas))
    assert errors == sorted(errors, reverse=True) and counts == sorted(counts)


def test_steps_are_short_where_the_field_bends():
    """A constant D takes the straight way; order 5 needs fewer evaluations than order 3."""
    straight = adaptive("rk45", 1e-8, Constant(), (1.0, 0.0))
    assert 2 * len(straight) < len(adaptive("rk45", 1e-8, FIELD, (1.0, 0.0)))
    assert adaptive("rk45", 1e-8).nfe < adaptive("rk23", 1e-8).nfe / 3


@pytest.mark.parametrize("name", ["rk45", "rk23"])
def test_a_run_to_zero_ends_at_the_prediction_above(name):
    run = adaptive(name, 1e-3, FIELD, (1.0, 0.5, 0.0))
    assert run.sigmas[-2] == 0.02 and run.sigmas[-1] == 0.0
    assert run.records[-1].nfe == 0  # known already
    short = gatekit.sample(FIELD, 0.01 * X, [0.01, 0.0], sampler=name)
    assert short.equal(FIELD(0.01 * X, 0.01))


@pytest.mark.parametrize("name", ["rk45", "rk23"])
def test_no_step_is_small_enough_for_noise(name):
    calls = iter(range(1000))

    def restless(x, sigma):
        return x * 0.0 + (-1.0) ** next(calls)

    with pytest.raises(NumericsError, match="raise rtol"):
        gatekit.sample(restless, X, [0.9, 0.2], sampler=name, rtol=1e-9, atol=1e-9)


def test_a_batch_is_as_good_as_its_worst_sample():
    """One wild sample among still ones is not averaged away."""
    sigma, x = (0.9, 0.2), torch.cat([X[:1], X[:1] * 0.0 + 0.5])
    truth = FIELD.flow(x, *sigma, steps=1000)
    phase = FunctionPhase(FIELD, "rk45", sigma, params={"rtol": 1e-5, "atol": 1e-5})
    assert float((trace_phases([phase], x).x - truth).abs().max()) < 1e-4
