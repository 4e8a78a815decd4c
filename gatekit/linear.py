"""Linear combinations of tensors, worked out first and computed in one pass.

A step of a sampler is a sum of a few tensors times numbers. Written out as tensors, each product
and each sum reads and writes the whole state; as ``Linear`` the numbers are worked out in
Python's floats, and ``evaluate`` reads every tensor once, in as few calls of torch as terms allow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20  # bytes a thread of a piece: what several terms pass through stays in a cache


Term = tuple[float, "Tensor | Linear"]
Program = tuple[bool, list[tuple[float, "Tensor"]]]


class Linear:
    """sum_i c_i t_i, not computed yet; ``+``, ``-``, and ``*``, ``/`` by numbers.

    Attributes:
        terms: Coefficients, and what they multiply: each tensor once, or a combination that is to
            be computed apart (``once``).
    """

    __slots__ = ("terms",)
    __array_ufunc__ = None

    def __init__(self, terms: Iterable[Term]) -> None:
        merged: dict[int, Term] = {}
        for factor, part in terms:
            before = merged.get(id(part))
            merged[id(part)] = (factor if before is None else before[0] + factor, part)
        self.terms = tuple(merged.values())

    def once(self) -> Linear:
        """Itself as one term: what is made of it reads its result, not its tensors."""
        return Linear(((1.0, self),))

    def tensor(self) -> Tensor:
        """Computed."""
        return evaluate(self)[0]

    def __add__(self, other: Tensor | Linear) -> Linear:
        return Linear((*self.terms, *lazy(other).terms))

    def __sub__(self, other: Tensor | Linear) -> Linear:
        return self + lazy(other) * -1.0

    def __mul__(self, factor: float) -> Linear:
        return Linear((factor * c, part) for c, part in self.terms)

    def __truediv__(self, divisor: float) -> Linear:
        return Linear((c / divisor, part) for c, part in self.terms)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Tensor | Linear) -> Linear:
        return lazy(other) - self


def lazy(x: Tensor | Linear) -> Linear:
    """A tensor as a combination of itself."""
    return x if isinstance(x, Linear) else Linear(((1.0, x),))


def mix(*terms: tuple[float, Tensor | Linear]) -> Any:
    """sum_i c_i t_i: a tensor if all t_i are, else a Linear."""
    total = Linear((factor * c, part) for factor, whole in terms for c, part in lazy(whole).terms)
    return total if any(isinstance(whole, Linear) for _, whole in terms) else total.tensor()


def evaluate(*combinations: Tensor | Linear) -> tuple[Tensor, ...]:
    """Compute several combinations in one pass over their tensors; tensors are given back.

    A combination used by another as one term (``Linear.once``) is computed once for both. Every
    call of torch takes in one tensor and rounds its product with the sum where the processor can:
    no more roundings than there are terms. A term with coefficient 0 is left out.
    """
    import torch

    sums: dict[int, list[Term]] = {}
    for combination in combinations:
        _order(combination, sums)
    tensors = [part for terms in sums.values() for _, part in terms if not isinstance(part, Linear)]
    given = [c for c in combinations if not isinstance(c, Linear)]
    made = {id(t): t for t in (*tensors, *given)}
    if not _alike(tensors):
        for key, terms in sums.items():
            made[key] = _plainly([(factor, made[id(part)]) for factor, part in terms])
        return tuple(made[id(c)] for c in combinations)
    programs: list[tuple[Tensor, Program]] = []
    for key, terms in sums.items():
        (factor, part), *others = terms
        if not others and factor == 1.0:
            made[key] = made[id(part)]
        else:
            made[key] = torch.empty_like(tensors[0])
            programs.append((made[key], _program([(c, made[id(p)]) for c, p in terms])))
    if programs:
        _run(programs, tensors)
    return tuple(made[id(c)] for c in combinations)


def _order(part: Tensor | Linear, sums: dict[int, list[Term]]) -> None:
    """Add what has to be computed for ``part``, what it reads first."""
    if not isinstance(part, Linear) or id(part) in sums:
        return
    terms = [term for term in part.terms if term[0] != 0.0] or list(part.terms[-1:])
    for _, inner in terms:
        _order(inner, sums)
    sums[id(part)] = terms


def _alike(tensors: Sequence[Tensor]) -> bool:
    """Whether ``out=`` can be used; it knows no gradients: a run has none, a path is anybody's."""
    import torch

    graded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return not graded and len({(t.shape, t.dtype, t.device) for t in tensors}) <= 1


def _program(terms: list[tuple[float, Tensor]]) -> Program:
    """How to compute a sum: whether by blends, and its terms in the order of the calls.

    Coefficients that sum to 1, as those of every deterministic step do, need one call less: each
    call blends a tensor into the mean so far, (1 - w) m + w t. Taken from the largest coefficient
    to the smallest, no partial sum is smaller than the next coefficient, so no blend magnifies a
    rounding.
    """
    total, largest = math.fsum(c for c, _ in terms), max(abs(c) for c, _ in terms)
    if len(terms) == 1 or abs(total - 1.0) > 2.0**-50 * max(1.0, largest):
        return False, terms
    blends: list[tuple[float, Tensor]] = []
    so_far = 0.0
    for c, tensor in sorted(terms, key=lambda term: -term[0]):
        so_far += c
        blends.append((c / so_far, tensor))
    return True, blends


def _run(programs: Sequence[tuple[Tensor, Program]], tensors: Sequence[Tensor]) -> None:
    """Run programs piece by piece on a CPU, on whole tensors elsewhere: launches are dear there."""
    import torch

    first, outs = tensors[0], [out for out, _ in programs]
    piece, size = PIECE // first.element_size() * torch.get_num_threads(), first.numel()
    whole = first.device.type != "cpu" or size < 2 * piece
    parts: dict[int, Any] = {}
    if whole or not all(t.is_contiguous() for t in (*tensors, *outs)):
        parts = {id(t): (t,) for t in (*tensors, *outs)}
    else:
        parts = {id(t): _pieces(t, piece) for t in (*tensors, *outs)}
    for k in range(len(parts[id(first)])):
        for out, (blends, terms) in programs:
            target: Any = parts[id(out)][k]
            (factor, tensor), *others = terms
            start = parts[id(tensor)][k]
            if not blends:
                torch.mul(start, factor, out=target)
                for factor, tensor in others:
                    target.add_(parts[id(tensor)][k], alpha=factor)
                continue
            (weight, tensor), *others = others
            torch.lerp(start, parts[id(tensor)][k], weight, out=target)
            for weight, tensor in others:
                target.lerp_(parts[id(tensor)][k], weight)


def _pieces(tensor: Tensor, size: int) -> Any:
    flat: Any = tensor.view(-1)
    return flat.split(size)


def _plainly(terms: list[tuple[float, Tensor]]) -> Tensor:
    """By torch's rules: for operands of different shapes and dtypes, and for gradients."""
    if len(terms) == 1 and terms[0][0] == 1.0:
        return terms[0][1]
    total: Any = terms[0][0] * terms[0][1]
    for factor, tensor in terms[1:]:
        total = total + factor * tensor
    return total
