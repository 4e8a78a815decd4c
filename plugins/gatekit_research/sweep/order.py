"""The order of arms in which variants are swapped least."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gatekit_research.sweep.arms import Arm


def variants_of(arm: Arm) -> tuple[str, ...]:
    """What an arm loads, in order, by what makes a variant another one."""
    plan = arm.plan
    names: list[str] = []
    for phase in plan.phases:
        variant = plan.variants[phase.variant]
        parameters = [p.model_dump(mode="json") for p in (variant.params, *variant.phases)]
        names.append(json.dumps([type(variant).__qualname__, phase.compute, parameters]))
    return tuple(dict.fromkeys(names))


def ordered(arms: Sequence[Arm]) -> list[Arm]:
    """References first, then always the arm that has least to load after the one before.

    Among equals: the one that begins with what is loaded, then the order of the file.
    """
    referred = {arm.reference for arm in arms}
    waiting = sorted(arms, key=lambda arm: arm.name not in referred)
    count = sum(arm.name in referred for arm in arms)
    return _chained(waiting[:count], ()) + _chained(
        waiting[count:], variants_of(waiting[count - 1]) if count else ()
    )


def _chained(arms: Sequence[Arm], loaded: tuple[str, ...]) -> list[Arm]:
    waiting, found = list(arms), list[Arm]()
    needs = {arm.name: variants_of(arm) for arm in arms}
    while waiting:

        def cost(arm: Arm, loaded: tuple[str, ...] = loaded) -> tuple[int, bool]:
            wanted = needs[arm.name]
            return sum(v not in loaded for v in wanted), wanted[:1] != loaded[-1:]

        best = min(waiting, key=cost)
        waiting.remove(best)
        found.append(best)
        loaded = needs[best.name]
    return found
