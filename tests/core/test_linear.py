import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from gatekit import Linear, RectifiedFlow, evaluate, lazy, linear

A, B, C = torch.randn(3, 2, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NUMBERS = st.floats(-3, 3)


@given(p=NUMBERS, q=NUMBERS, r=st.floats(0.5, 3))
def test_it_is_what_the_tensors_give(p, q, r):
    wanted = (p * A - (B - q * A) / r) + C * p - B
    made = (p * lazy(A) - (B - q * lazy(A)) / r) + lazy(C) * p - B
    assert torch.allclose(made.tensor(), wanted, atol=1e-12)
    assert torch.allclose(evaluate(C - lazy(A))[0], C - A)


def test_a_tensor_is_read_once():
    (term,) = (lazy(A) + A - 0.5 * lazy(A)).terms
    assert term[0] == 1.5 and term[1] is A


def test_several_at_once_and_tensors_as_they_are():
    x, y, z = evaluate(lazy(A) + B, C, 2.0 * lazy(B) - C)
    assert y is C and torch.allclose(x, A + B) and torch.allclose(z, 2 * B - C)
    assert evaluate(lazy(A))[0] is A


def combined(tensors, mean):
    """Factors from 0.3 down, below 0; the first such that all sum to 1 if it is to be a mean."""
    factors = [0.3 - 0.2 * i for i in range(len(tensors))]
    factors[0] += (1.0 - sum(factors)) * mean
    return Linear(zip(factors, tensors, strict=True))


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("terms", [2, 5])
def test_pieces_change_no_bit(monkeypatch, terms, mean):
    tensors = torch.randn(terms, 3, 1000, generator=torch.Generator().manual_seed(1))
    combination = combined(tensors, mean)
    several = (combination, 0.5 * combination, combination.once() * 2.0 - tensors[1])
    whole = evaluate(*several)
    monkeypatch.setattr(linear, "PIECE", 4 * 37)
    assert all(a.equal(b) for a, b in zip(whole, evaluate(*several), strict=True))
    samples = evaluate(combined(list(tensors[:, 1]), mean))[0]
    assert samples.equal(whole[0][1]), "a sample alone is what it is in a batch"


class Calls(TorchDispatchMode):
    """Counts what computes."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self.names = []
        return super().__enter__()

    @property
    def computing(self):
        return [name for name in self.names if name not in ("empty_like", "view", "split")]


def test_a_sum_takes_a_call_a_term_and_a_mean_one_less():
    with Calls() as calls:
        evaluate(0.5 * lazy(A) + B, 0.5 * lazy(A) + 0.7 * lazy(B) - 0.2 * lazy(C))
    assert calls.computing == ["mul", "add_", "lerp", "lerp_"]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=5))
def test_a_mean_is_as_exact_as_its_largest_term(factors):
    tensors = torch.randn(len(factors) + 1, 64, generator=torch.Generator().manual_seed(2))
    factors = [1.0 - math.fsum(factors), *factors]
    made = evaluate(Linear(zip(factors, tensors, strict=True)))[0]
    true = sum(f * t.double() for f, t in zip(factors, tensors, strict=True))
    size = max(float((f * t).abs().max()) for f, t in zip(factors, tensors, strict=True))
    assert float((made - true).abs().max()) <= 2.0**-24 * 3 * len(tensors) * size


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_a_mean_of_equals_is_what_they_are(factors):
    alike = [A.clone() for _ in range(len(factors) + 1)]
    mean = Linear(zip([1.0 - math.fsum(factors), *factors], alike, strict=True))
    assert mean.tensor().equal(A)


def test_what_is_used_as_one_term_is_computed_once():
    first = 0.5 * lazy(A) + 0.7 * lazy(B) - 0.2 * lazy(C)
    with Calls() as calls:
        second, kept = evaluate(0.3 * first.once() + 0.7 * lazy(B), first)
    assert calls.computing == ["lerp", "lerp_", "lerp"]
    assert kept.equal(first.tensor()) and second.equal((0.3 * lazy(kept) + 0.7 * lazy(B)).tensor())
    assert evaluate(0.3 * first.once() + 0.7 * lazy(B))[0].equal(second), "asked for alone"
    x, y = evaluate(lazy(A).once(), lazy(lazy(A).once()))
    assert x is A and y is A, "nothing to compute"


def test_what_is_not_contiguous_or_of_one_dtype():
    turned = torch.randn(50, 2, dtype=torch.float64).T
    assert torch.allclose((lazy(A) + turned).tensor(), A + turned)
    assert (lazy(A.float()) + A).tensor().dtype == torch.float64
    assert torch.allclose((lazy(A) + B[:1]).tensor(), A + B[:1])


def test_gradients_pass_through():
    x = A.clone().requires_grad_()
    RectifiedFlow().transfer(x, x * x, 0.8, 0.2).sum().backward()
    ratio = 0.2 / 0.8
    assert torch.allclose(x.grad, ratio + (0.8 - 0.2 * ratio) * 2 * A)


def test_what_weighs_nothing_is_not_read():
    bad = torch.full_like(A, torch.nan)
    assert (A + 0.0 * lazy(bad)).tensor().equal(A)
    assert (0.0 * lazy(A)).tensor().equal(torch.zeros_like(A))


def test_operands_are_not_changed():
    before = A.clone()
    evaluate(lazy(A) + B, lazy(A) * 3.0)
    assert A.equal(before)


def test_a_path_answers_in_kind():
    path = RectifiedFlow()
    for x, d in ((lazy(A), B), (A, lazy(B)), (lazy(A), lazy(B))):
        made = path.transfer(x, d, 0.8, 0.3)
        assert isinstance(made, Linear)
        assert made.tensor().equal(path.transfer(A, B, 0.8, 0.3))
    assert torch.allclose(
        path.renoise(lazy(A), 0.3, 0.8, C).tensor(), path.renoise(A, 0.3, 0.8, C), atol=1e-15
    )
