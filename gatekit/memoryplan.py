"""The memory of a plan: for each phase what is where, from headers and from what is free."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

from gatekit.capacity import free_bytes, host_bytes
from gatekit.chunks import LEAST
from gatekit.device import kind_of
from gatekit.errors import ScheduleError
from gatekit.placement import Demand, Footprint, Placement, TooLittleError, place
from gatekit.sizetext import as_setting, size
from gatekit.unchanged import Stamp, stamp

if TYPE_CHECKING:
    from pathlib import Path

    from gatekit.family import ModelFamily
    from gatekit.plan import Plan, PlannedPhase

SHARE = 0.75  # of the memory, for models that do not tell what they need to run
RING, RING_SHARE = 2 << 30, 0.25  # host memory on the way, and the share of what is free
LEAST_RING = LEAST << 20


@dataclass(frozen=True)
class MemoryPlan:
    """What is where during a run.

    Attributes:
        limit: Bytes of the device that may be used; None if unknown.
        ring: Bytes of host memory through which weights go.
        phases: One placement a phase, in order.
    """

    limit: int | None
    ring: int
    phases: tuple[Placement, ...]

    @property
    def short(self) -> int:
        """Bytes by which what is there falls short of the least that would do."""
        most = max(placement.need for placement in self.phases)
        return max(0, most - self.limit) if self.limit is not None else 0


def footprint(plan: Plan, phase: PlannedPhase) -> Footprint:
    """What a phase's model takes; a model that does not tell is one piece, as its facts say."""
    variant = plan.variants[phase.variant]
    told = variant.footprint(phase.compute, plan.family.latent_shape(plan.video))
    if told is not None:
        return told
    expected = plan.facts[phase.variant].resident_for(phase.compute)
    return Footprint(expected, working=round(expected * (1 / SHARE - 1)))


def memory_plan(plan: Plan, limit: int | None) -> MemoryPlan | None:
    """Placements of every phase; None where a header could not be read.

    Args:
        plan: The plan.
        limit: Bytes of its device that may be used; None if unknown.

    Raises:
        ScheduleError: ``memory`` allows too little, or no device has as much.
    """
    if not {phase.variant for phase in plan.phases} <= set(plan.facts):
        return None
    passes = _passes(plan)
    demands = [
        Demand(f"{phase.variant} {phase.compute}", footprint(plan, phase), passes[phase.name])
        for phase in plan.phases
    ]
    # One piece that is too large is tried all the same: what its facts tell is an expectation.
    fitted = [d if d.footprint.blocks else _clamped(d, limit) for d in demands]
    try:
        found = place(fitted, inf if limit is None else limit)
    except TooLittleError as short:
        _refuse(plan, short)
        found = place(fitted, short.least)  # what is free may be more when it runs: it is tried
    return MemoryPlan(limit, _ring(plan), _apart(plan, found))


def expected_limit(plan: Plan) -> int | None:
    """Bytes that may be used: what the schedule says, at most what is free now."""
    return at_most(plan.schedule.memory.vram, free_bytes(plan.device))


def at_most(*given: int | None) -> int | None:
    """The least of what is known; None where nothing is."""
    return min((value for value in given if value is not None), default=None)


def check_memory(plan: Plan) -> None:
    """Raise ScheduleError where ``memory`` allows less than any placement takes."""
    asked = plan.schedule.memory
    if asked.ram is not None and asked.ram < LEAST_RING:
        raise ScheduleError(
            "too little host memory to read weights through",
            where=plan.schedule.source.where(("memory", "ram")),
            value=size(asked.ram),
            remedy=f"allow at least {as_setting(LEAST_RING)}",
        )
    if asked.vram is not None:
        memory_plan(plan, asked.vram)


def _passes(plan: Plan) -> dict[str, int]:
    """Passes through each phase's model; one more evaluation closes a history with the former."""
    counts: dict[str, int] = {phase.name: 0 for phase in plan.phases}
    for row in plan.table():
        counts[row.phase] += row.passes
    return {name: max(count, 1) for name, count in counts.items()}


def _clamped(demand: Demand, limit: int | None) -> Demand:
    told = demand.footprint
    if limit is None or told.fixed + told.working <= limit:
        return demand
    fixed = min(told.fixed, limit)
    return replace(demand, footprint=Footprint(fixed, working=0))


def _apart(plan: Plan, found: Iterable[Placement]) -> tuple[Placement, ...]:
    """The placements, without what is not brought in ahead.

    One variant in two precisions is never there twice; on a CPU the page cache is ahead enough.
    """
    given, on_cpu = list(found), kind_of(plan.device) == "cpu"
    for i, (phase, after) in enumerate(pairwise(plan.phases)):
        if (on_cpu or phase.variant == after.variant) and given[i].ahead is not None:
            given[i] = replace(given[i], ahead=None, beside=0)
    return tuple(given)


def _ring(plan: Plan) -> int:
    """Host memory for weights on their way."""
    free = host_bytes()
    default = RING if free is None else min(RING, int(free * RING_SHARE))
    asked = plan.schedule.memory.ram
    return max(LEAST_RING, min(asked, default) if asked is not None else default)


def parts_of(plan: Plan) -> dict[str, tuple[str, int]]:
    """Section (``text_encoder``, ``vae``) -> the device it runs on, bytes it takes there."""
    found: dict[str, tuple[str, int]] = {}
    for section, part in plan.family.components.given().items():
        if part.file is None or (now := stamp(part.file)) is None:
            continue
        taken = _resident(type(plan.family), part.file, now).get(section)
        if taken is not None:  # told for fp32
            narrow = 2 if part.precision in ("bf16", "fp16") else 1
            found[section] = (part.device or plan.device, taken // narrow)
    return found


@lru_cache(maxsize=64)
def _resident(family: type[ModelFamily], file: Path, now: Stamp) -> dict[str, int]:
    """Bytes of each component that a file serves as; its header is read once, not every run."""
    return {name: facts.resident_bytes for name, facts in family.component_facts(file).items()}


def _refuse(plan: Plan, short: TooLittleError) -> None:
    """Raise ScheduleError where the schedule itself allows less than the least that would do."""
    phase, asked = plan.phases[short.demand], plan.schedule.memory.vram
    if asked is None or asked >= short.least:
        return
    raise ScheduleError(
        f"phase {phase.name!r} does not fit into this memory, even with every block streamed",
        where=plan.schedule.source.where(("memory", "vram")),
        value=size(asked),
        remedy=f"the least that would do is {as_setting(short.least)}; a smaller video needs less",
    )


def lines(memory: MemoryPlan, plan: Plan) -> list[str]:
    """The memory plan for people."""
    of = "unknown memory" if memory.limit is None else size(memory.limit)
    on = "the CPU's memory" if kind_of(plan.device) == "cpu" else plan.device
    parts = parts_of(plan)
    found = [f"memory: {of} of {on} may be used, {size(memory.ring)} of the host to read through"]
    names = {f"{p.variant} {p.compute}": p.variant for p in plan.phases}
    if (part := parts.get("text_encoder")) is not None:
        first = names[memory.phases[0].key]
        begun = f"; {first} is read meanwhile" if _reads(memory.phases[0], plan) else ""
        found.append(f"  encode: text encoder {size(part[1])} on {part[0]}, freed{begun}")
    following = {p.key: p for p in memory.phases}
    for phase, there in zip(plan.phases, memory.phases, strict=True):
        said = [_about(there, phase.variant), *(f"{names[key]} stays" for key in there.keeps)]
        if there.next is not None and _reads(following[there.next], plan):
            ahead = f", {size(there.beside)} of it to the device" if there.ahead is not None else ""
            said.append(f"{names[there.next]} is read meanwhile{ahead}")
        found.append(f"  {phase.name}: " + "; ".join(said))
    if memory.short:
        found.append(f"warning: that is {size(memory.short)} less than the least that would do")
    if (part := parts.get("vae")) is not None:
        found.append(f"  decode: VAE {size(part[1])} on {part[0]}, models freed before")
    return found


def _about(there: Placement, variant: str) -> str:
    working = f", {size(there.footprint.working)} to run"
    if not there.streamed:
        return f"{variant} {size(there.weights)} resident{working}"
    blocks = len(there.footprint.blocks)
    return (
        f"{variant} {size(there.weights)}: {len(there.resident)} of {blocks} blocks resident, "
        f"{len(there.streamed)} streamed through {there.slots} slots, "
        f"{size(there.pass_bytes)} a pass{working}"
    )


def _reads(there: Placement, plan: Plan) -> bool:
    """Whether a model is read in the background, not mapped or loaded as one piece."""
    took = there.footprint
    by_block = bool(took.blocks) and not took.at_once and kind_of(plan.device) != "cpu"
    return bool(there.streamed) or by_block


def as_data(memory: MemoryPlan, plan: Plan) -> dict[str, Any]:
    """The memory plan as plain data."""
    return {
        "limit_bytes": memory.limit,
        "ring_bytes": memory.ring,
        "parts": {
            section: {"device": device, "bytes": count}
            for section, (device, count) in parts_of(plan).items()
        },
        "phases": [
            {
                "name": phase.name,
                "resident_bytes": there.load_bytes,
                "slot_bytes": there.weights - there.load_bytes,
                "working_bytes": there.footprint.working,
                "blocks": len(there.footprint.blocks),
                "streamed_blocks": list(there.streamed),
                "streamed_bytes_a_pass": there.pass_bytes,
                "next": there.next.split()[0] if there.next else None,
                "next_bytes_ahead": there.beside,
                "next_blocks_ahead": len(there.ahead) if there.ahead is not None else None,
                "keeps": [key.split()[0] for key in there.keeps],
            }
            for phase, there in zip(plan.phases, memory.phases, strict=True)
        ],
    }
