"""Linear combinations of tensors, worked out first and computed in one pass.

A step of a sampler is a sum of a few tensors times numbers. Written out as tensors, each product
and each sum reads and writes the whole state; as ``Linear`` the numbers are worked out in
Python's floats, and ``evaluate`` reads every tensor once: one call of torch a term.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20  # bytes a thread of a piece: what several terms pass through stays in a cache


class Linear:
    """sum_i c_i t_i, not computed yet; ``+``, ``-``, and ``*``, ``/`` by numbers.

    Attributes:
        terms: Coefficients and tensors, each tensor once.
    """

    __slots__ = ("terms",)
    __array_ufunc__ = None

    def __init__(self, terms: Iterable[tuple[float, Tensor]]) -> None:
        merged: dict[int, tuple[float, Tensor]] = {}
        for factor, tensor in terms:
            before = merged.get(id(tensor))
            merged[id(tensor)] = (factor if before is None else before[0] + factor, tensor)
        self.terms = tuple(merged.values())

    def tensor(self) -> Tensor:
        """Computed."""
        return evaluate(self)[0]

    def __add__(self, other: Tensor | Linear) -> Linear:
        return Linear((*self.terms, *lazy(other).terms))

    def __sub__(self, other: Tensor | Linear) -> Linear:
        return self + lazy(other) * -1.0

    def __mul__(self, factor: float) -> Linear:
        return Linear((factor * c, tensor) for c, tensor in self.terms)

    def __truediv__(self, divisor: float) -> Linear:
        return Linear((c / divisor, tensor) for c, tensor in self.terms)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Tensor | Linear) -> Linear:
        return lazy(other) - self


def lazy(x: Tensor | Linear) -> Linear:
    """A tensor as a combination of itself."""
    return x if isinstance(x, Linear) else Linear(((1.0, x),))


def mix(*terms: tuple[float, Tensor | Linear]) -> Any:
    """sum_i c_i t_i: a tensor if all t_i are, else a Linear."""
    total = Linear((factor * c, tensor) for factor, part in terms for c, tensor in lazy(part).terms)
    return total if any(isinstance(part, Linear) for _, part in terms) else total.tensor()


def evaluate(*combinations: Tensor | Linear) -> tuple[Tensor, ...]:
    """Compute several combinations in one pass over their tensors; tensors are given back.

    Terms are added in their order, the product rounded with the sum where the processor can: no
    more roundings than there are terms. A term with coefficient 0 is left out.
    """
    import torch

    made: list[Tensor | None] = [None] * len(combinations)
    wanted: list[tuple[int, list[tuple[float, Tensor]]]] = []
    for i, combination in enumerate(combinations):
        if not isinstance(combination, Linear):
            made[i] = combination
            continue
        terms = [term for term in combination.terms if term[0] != 0.0]
        terms = terms or list(combination.terms[-1:])
        if len(terms) == 1 and terms[0][0] == 1.0:
            made[i] = terms[0][1]
        else:
            wanted.append((i, terms))
    tensors = [tensor for _, terms in wanted for _, tensor in terms]
    if not tensors:
        return tuple(t for t in made if t is not None)
    first = tensors[0]
    alike = all(t.shape == first.shape and t.dtype == first.dtype for t in tensors)
    # ``out=`` knows no gradients; a run has none, but a path is anybody's.
    if not alike or (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        for i, terms in wanted:
            made[i] = _plainly(terms)
        return tuple(t for t in made if t is not None)
    for i, _ in wanted:
        made[i] = torch.empty_like(first)
    outs: list[Any] = [made[i] for i, _ in wanted]
    size = first.numel()
    piece = PIECE // first.element_size() * torch.get_num_threads()
    if first.device.type != "cpu" or size < 2 * piece or not _flat([*tensors, *outs]):
        piece = max(size, 1)
        parts: dict[int, Any] = {id(t): (t,) for t in (*tensors, *outs)}
    else:
        parts = {id(t): _pieces(t, piece) for t in (*tensors, *outs)}
    for k in range(len(parts[id(first)])):
        for (_, terms), out in zip(wanted, outs, strict=True):
            target: Any = parts[id(out)][k]
            (factor, tensor), *others = terms
            torch.mul(parts[id(tensor)][k], factor, out=target)
            for factor, tensor in others:
                target.add_(parts[id(tensor)][k], alpha=factor)
    return tuple(t for t in made if t is not None)


def _pieces(tensor: Tensor, size: int) -> Any:
    flat: Any = tensor.view(-1)
    return flat.split(size)


def _flat(tensors: Iterable[Tensor]) -> bool:
    return all(t.is_contiguous() for t in tensors)


def _plainly(terms: list[tuple[float, Tensor]]) -> Tensor:
    """By torch's rules: for operands of different shapes and dtypes, and for gradients."""
    total: Any = terms[0][0] * terms[0][1]
    for factor, tensor in terms[1:]:
        total = total + factor * tensor
    return total
