import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("terms", [2, 5])
def test_pieces_change_no_bit(monkeypatch, terms):
    tensors = torch.randn(terms, 3, 1000, generator=torch.Generator().manual_seed(1))
    combination = Linear((0.3 - 0.2 * i, t) for i, t in enumerate(tensors))
    whole = evaluate(combination, 0.5 * combination)
    monkeypatch.setattr(linear, "PIECE", 4 * 37)
    pieces = evaluate(combination, 0.5 * combination)
    assert all(a.equal(b) for a, b in zip(whole, pieces, strict=True))


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
