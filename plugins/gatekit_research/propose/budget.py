"""A budget, the best proposal within it, and what to say where there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import gatekit
from gatekit_research.propose.problem import KINDS, Problem, Proposal
from gatekit_research.propose.search import pareto

UNITS = {"": 1, "B": 1, "MIB": 1 << 20, "GIB": 1 << 30, "MB": 10**6, "GB": 10**9}


def read_budget(texts: Sequence[str]) -> dict[str, float]:
    """``["bits=5.0", "vram=12GiB"]`` -> limits by kind. Raises InputError."""
    limits: dict[str, float] = {}
    for text in texts:
        kind, equals, value = text.partition("=")
        if kind not in KINDS or not equals or kind in limits:
            raise gatekit.InputError(
                "a budget is " + ", ".join(f"{k}=..." for k in KINDS) + ", each at most once",
                where="--budget",
                value=text,
                remedy="such as --budget bits=5.0 --budget vram=12GiB",
            )
        match = re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?) *([kKMGTi]*B)?", value.strip())
        unit = (match[2] or "").upper() if match else "?"
        try:
            number = float(match[1]) if match else math.nan
        except ValueError:
            number = math.nan
        if math.isnan(number) or unit not in (UNITS if kind == "vram" else ("",)):
            shown = "a number and MiB or GiB" if kind == "vram" else "a number"
            raise gatekit.InputError(
                f"{kind} is at most {shown}",
                where="--budget",
                value=text,
                remedy="such as " + ("vram=12GiB" if kind == "vram" else f"{kind}=1"),
            )
        limits[kind] = number * UNITS[unit]
    return limits


@dataclass(frozen=True)
class Answer:
    """What was found.

    Attributes:
        chosen: The best proposal within the limits.
        front: All of them, by ``axis``: each costs less than the one before and has a larger
            objective.
        axis: ``bits`` or ``seconds``.
    """

    chosen: Proposal
    front: tuple[Proposal, ...]
    axis: str


def answer(problem: Problem, limits: Mapping[str, float], phases: int) -> Answer:
    """The proposal of the least error + w risk within the limits.

    With a limit of ``error`` the question is turned around: the fewest bits within it, or the
    fewest seconds, where those are limited and bits are not.

    Raises:
        InputError: Nothing meets the limits; it names the nearest limits that something meets.
    """
    axis = "seconds" if "seconds" in limits and "bits" not in limits else "bits"
    found = pareto(problem, phases, limits, [axis])
    if not found:
        raise nothing(problem, limits, phases)
    if "error" in limits:
        chosen = min(found, key=lambda p: (round(getattr(p, axis), 9), p.objective))
    else:
        chosen = min(found, key=lambda p: (p.objective, getattr(p, axis)))
    # The front is without limits of its own two axes, so that what a little more buys is seen.
    others = {k: v for k, v in limits.items() if k not in (axis, "error")}
    shown = pareto(problem, phases, others, [axis])
    return Answer(chosen, front_of(shown, axis), axis)


def front_of(found: Sequence[Proposal], axis: str) -> tuple[Proposal, ...]:
    """Those that are best for what they cost on ``axis``."""
    front: list[Proposal] = []
    for each in sorted(found, key=lambda p: (p.objective, getattr(p, axis))):
        if not front or getattr(each, axis) < getattr(front[-1], axis) - 1e-9:
            front.append(each)
    return tuple(front)


def nothing(problem: Problem, limits: Mapping[str, float], phases: int) -> gatekit.InputError:
    """The error where nothing meets the limits, with the nearest that something does."""
    least = len(problem.stretches)
    if phases < least:
        return gatekit.InputError(
            "fewer phases than the profiled schedule's kinds of phase",
            where="--phases",
            value=phases,
            remedy=f"use {least} or more: these differ in more than their variant",
        )
    near = {kind: nearest(problem, limits, phases, kind) for kind in limits}
    said = [f"{kind}={shown(kind, value)}" for kind, value in near.items() if value is not None]
    given = ", ".join(f"{kind}={shown(kind, value)}" for kind, value in limits.items())
    alone = "" if len(limits) == 1 else ", with the others as they are"
    return gatekit.InputError(
        f"nothing in {phases} phases meets this budget",
        where="--budget",
        value=given,
        remedy=f"the nearest that does: {' or '.join(said)}{alone}"
        if said
        else "no single limit can be raised so that something does; raise several",
    )


def nearest(problem: Problem, limits: Mapping[str, float], phases: int, kind: str) -> float | None:
    """The least limit of one kind that something meets, the others held; None where none does."""
    others = {k: v for k, v in limits.items() if k != kind}
    if kind in ("vram", "switches"):
        tried = sorted(set(problem.peaks.values())) if kind == "vram" else range(phases)
        return next((v for v in tried if pareto(problem, phases, {**others, kind: v})), None)
    found = pareto(problem, phases, others, [kind])
    return min((getattr(p, kind) for p in found), default=None)


def shown(kind: str, value: float) -> str:
    """A limit as it can be typed, rounded up."""
    if kind == "vram":
        return f"{math.ceil(value / (1 << 20))}MiB"
    if kind == "switches" or value == 0:
        return f"{value:g}"
    scale = 10.0 ** (3 - math.floor(math.log10(abs(value))))
    return f"{math.ceil(value * scale - 1e-9) / scale:g}"
