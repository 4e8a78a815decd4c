"""Weights of exponential multistep samplers, in any interpolation coordinate.

With z = x/s and y = alpha/s the flow ODE is dz/dy = D, regular at s = 1 (y = 0). Put the
Lagrange interpolant of past evaluations, in a coordinate c, in the place of D:

    x' = (s'/s) x + sum_j w_j D_j,   w_j = s' * integral from y to y' of l_j(c(y)) dy.

The stochastic form has another density under the same integral: with noise of strength eta

    x' = (s'/s) (y/y')^eta x + sum_j W_j D_j + s' sqrt(1 - (y/y')^(2 eta)) n,
    W_j = s' y'^-eta * integral from y to y' of (1 + eta) y^eta l_j dy,

which is a transfer to ``sigma_down(eta, "sde")`` with the normalised W_j, and a renoise. And
what is interpolated need not be D: x' = x + sum_j v_j * integral of l_j ds has the density s^2,
since ds = -s^2 dy on every path here.

Samplers in use differ in c alone: ``lam`` (diffusers, Wan), ``u`` (k-diffusion, ComfyUI),
``ve`` (DEIS), ``s``, ``theta``. The weights sum to alpha' - alpha s'/s, the factor of D in
``Path.transfer``; divided by it they sum to 1, and a step reads
``c.transfer(c.x, sum_j a_j D_j, c.sigma_next)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from gatekit.errors import InputError

if TYPE_CHECKING:
    from gatekit.path import Path


@cache
def gauss_legendre() -> tuple[tuple[float, float], ...]:
    """Nodes and weights of the 32-point rule on [-1, 1]."""
    import numpy

    nodes, weights = numpy.polynomial.legendre.leggauss(32)
    return tuple(zip(nodes.tolist(), weights.tolist(), strict=True))


def multistep_weights(
    path: Path,
    coordinate: str,
    sigma: float,
    sigma_next: float,
    nodes: Sequence[float],
    density: Callable[[float], float] | None = None,
) -> tuple[float, ...]:
    """Weights a_j, summing to 1, of the evaluations at ``nodes`` over one step.

    Exact for a D that is a polynomial of degree ``len(nodes) - 1`` in the coordinate.
    Evaluated with 32 Gauss-Legendre points: to machine precision for the steps in use.

    Args:
        path: Noise path.
        coordinate: ``lam``, ``u``, ``s``, ``theta`` or ``ve``.
        sigma: Start of the step.
        sigma_next: End of the step, > 0 and below ``sigma``.
        nodes: Sigmas of the evaluations, distinct. One without a finite coordinate (sigma 1
            in ``lam`` and ``ve``) gets weight 0, the limit of its Lagrange basis function.
        density: Weight of dy at a sigma inside the step, up to a factor: 1 if None,
            (alpha/s)^eta for the reverse SDE, s^2 to integrate over s. A fractional power that
            vanishes at the step's start, at sigma 1, leaves an error of 1e-5.

    Raises:
        InputError: Nodes coincide, or an unknown coordinate.
    """
    if len(set(nodes)) != len(nodes):
        raise InputError(
            "multistep nodes coincide", value=tuple(nodes), remedy="give each sigma once"
        )
    places = [path.coordinate(coordinate, node) for node in nodes]
    finite = [j for j, place in enumerate(places) if math.isfinite(place)]
    if len(nodes) == 1 or not finite:
        return tuple(1.0 if j == 0 else 0.0 for j in range(len(nodes)))
    if len(finite) == 1:
        return tuple(1.0 if j == finite[0] else 0.0 for j in range(len(nodes)))

    # dy = e^u du with u = -log s (alpha = 1 - s or 1): the integrand is smooth to s = 1. Along
    # lam, where dy = e^lam dlam, the basis itself is a polynomial, and log-singular in u.
    along = "lam" if coordinate == "lam" and sigma < path.sigma_max else "u"
    start, end = path.coordinate(along, sigma), path.coordinate(along, sigma_next)
    middle, half = (start + end) / 2, (end - start) / 2
    known = [places[j] for j in finite]
    sums = [0.0] * len(known)
    for node, weight in gauss_legendre():
        point = middle + half * node
        at = point
        if along != coordinate:
            at = path.coordinate(coordinate, min(math.exp(-point), path.sigma_max))
        share = weight * math.exp(point - end)  # of dy, up to a constant, which drops out below
        if density is not None:
            share *= density(_sigma_at(path, along, point))
        away = [at - place for place in known]
        for j in range(len(known)):  # the j-th Lagrange polynomial, but for its denominator
            value = share
            for i, distance in enumerate(away):
                if i != j:
                    value *= distance
            sums[j] += value
    weights = [0.0] * len(nodes)
    for j, place, value in zip(finite, known, sums, strict=True):
        weights[j] = value / math.prod(place - other for other in known if other != place)
    total = math.fsum(weights)
    return tuple(w / total for w in weights)


def _sigma_at(path: Path, along: str, point: float) -> float:
    return path.from_ve(math.exp(-point)) if along == "lam" else math.exp(-point)
