"""Residency: brings each phase's model in as the memory plan says, and the next one meanwhile."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from gatekit.capacity import free_bytes
from gatekit.chunks import ChunkPool
from gatekit.device import kind_of
from gatekit.errors import GatekitError, InputError
from gatekit.memoryplan import SHARE, MemoryPlan, at_most, memory_plan, parts_of
from gatekit.placement import Demand, Placement, ways
from gatekit.sizetext import as_setting, size

if TYPE_CHECKING:
    from gatekit.plan import Plan, PlannedPhase
    from gatekit.variant import ModelVariant

log = logging.getLogger("gatekit")
T = TypeVar("T")
TILE = 256  # pixels, where decoding ran out of memory
LESS = 0.9  # of the memory that was to be used when it ran out, to be asked for next time


@dataclass
class Residency:
    """Loads variants as phases ask for them, and makes room before.

    What leaves goes in the order in which it was used last, what the plan needs again after what
    it does not. Of a model that does not tell what it takes to run, weights may fill three quarters
    of the budget: ``memory.vram``, else what was free at the start.

    Attributes:
        plan: Whose variants.
        loaded: Variant -> expected bytes, the one used last at the end; several runs may share it.
        seconds: Key -> seconds spent loading it.
        budget: Bytes of the device that may be used; None if unknown.
        memory: Placements of the plan's phases; None where headers could not be read.
    """

    plan: Plan
    loaded: dict[ModelVariant, int] = field(default_factory=dict["ModelVariant", int])
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        free = free_bytes(self.plan.device)
        if free is not None:  # what earlier runs left loaded can be given back
            free += sum(self.loaded.values())
        self.budget = at_most(self.plan.schedule.memory.vram, free)
        self.memory: MemoryPlan | None = memory_plan(self.plan, self.budget)
        self._pool: ChunkPool | None = None
        self._begun: set[ModelVariant] = set()
        self._streams: set[ModelVariant] = set()  # those that a phase has streamed
        self._reduced: dict[str, Placement] = {}  # phases that ran out of memory once

    @property
    def pool(self) -> ChunkPool:
        """Host memory to read through; none is taken before something is read."""
        if self._pool is None:
            ring = self.memory.ring if self.memory is not None else 0
            self._pool = ChunkPool(ring, pinned=kind_of(self.plan.device) == "cuda")
        return self._pool

    def start(self, number: int = 0) -> None:
        """Begin to read the first model, while inputs are encoded; none of it to the device."""
        self.leave_room("text_encoder")
        if number < len(self.plan.phases):
            self._prepare(self.plan.phases[number], None)

    def acquire(self, phase: PlannedPhase) -> ModelVariant:
        """The phase's variant, loaded. Raises GatekitError where the memory does not suffice."""
        variant, device = self.plan.variants[phase.variant], self.plan.device
        if variant.loaded != (device, phase.compute) or self._placement(phase) is not None:
            self._make_room(phase)
            began = time.perf_counter()
            error = attempt(lambda: self._bring(phase))
            if error is not None:
                variant.unload()
                self._reduce(phase, error)
            spent = time.perf_counter() - began
            self.seconds[phase.variant] = self.seconds.get(phase.variant, 0.0) + spent
        self.loaded.pop(variant, None)
        self.loaded[variant] = self._bytes(phase)
        self._bring_next(phase)
        return variant

    def guarded(self, phase: PlannedPhase, call: Callable[[], T]) -> T:
        """What ``call`` makes of the phase's variant; once more, streamed, if memory runs out."""
        found: list[T] = []
        error = attempt(lambda: found.append(call()))
        if error is not None:  # outside of its handler, which would hold what failed in memory
            self._reduce(phase, error)
            again = attempt(lambda: found.append(call()))
            if again is not None:
                raise self._too_large(phase, again)
        return found[0]

    def leave_room(self, section: str) -> None:
        """Let models go that leave no room for the text encoder or the VAE."""
        if not self.loaded or self.budget is None:
            return
        device, count = parts_of(self.plan).get(section, ("", 0))
        if device == self.plan.device:
            self._evict(count, round(SHARE * self.budget), set())

    def close(self) -> None:
        """The run is over: nothing goes on in the background. What was whole may stay loaded."""
        for variant in self._begun:
            if variant not in self.loaded:
                variant.unload()
        self._begun.clear()
        for variant in list(self.loaded):
            variant.settle()
            if variant.loaded is None:
                variant.unload()
                del self.loaded[variant]
        if self._pool is not None:
            self._pool.close()

    def _bring(self, phase: PlannedPhase) -> None:
        variant, placement = self.plan.variants[phase.variant], self._placement(phase)
        self._streams.discard(variant)
        if placement is None:
            variant.load(self.plan.device, phase.compute)
        else:
            if placement.streamed:
                self._streams.add(variant)
            variant.place(self.plan.device, phase.compute, placement, self.pool)

    def _placement(self, phase: PlannedPhase) -> Placement | None:
        """Where the phase's weights are to be; None for a model that is one piece."""
        if self.memory is None:
            return None
        found = self.memory.phases[self.plan.phases.index(phase)]
        return self._reduced.get(phase.name, found) if found.footprint.blocks else None

    def _bytes(self, phase: PlannedPhase) -> int:
        """Expected weights on the device."""
        placement, facts = self._placement(phase), self.plan.facts.get(phase.variant)
        if placement is not None:
            return placement.weights
        return facts.resident_for(phase.compute) if facts is not None else 0

    def _make_room(self, phase: PlannedPhase) -> None:
        """Let others go until the phase's model fits, or nothing is left."""
        variant, placement = self.plan.variants[phase.variant], self._placement(phase)
        for other in self._streams - {variant}:  # its reading ahead holds host memory
            self._let_go(other)
        if self.budget is None or phase.variant not in self.plan.facts:
            self._evict(1, 0, set())
        elif placement is None:
            self._evict(self._bytes(phase), round(SHARE * self.budget), {variant})
        else:
            self._evict(placement.need, self.budget, {variant})

    def _evict(self, need: int, most: int, own: set[ModelVariant]) -> None:
        """Let others than ``own`` go until ``need`` bytes beside them are at most ``most``."""
        while others := [variant for variant in self.loaded if variant not in own]:
            if need + sum(self.loaded[variant] for variant in others) <= most:
                return
            leaving = min(others, key=lambda variant: variant in self.plan.variants.values())
            self._let_go(leaving)

    def _let_go(self, variant: ModelVariant) -> None:
        self.loaded.pop(variant, None)
        self._begun.discard(variant)
        self._streams.discard(variant)
        variant.unload()

    def _bring_next(self, phase: PlannedPhase) -> None:
        """Begin with the next phase's variant, if it is another one and the plan has room."""
        now, phases = self._placement(phase), self.plan.phases
        later = phases[phases.index(phase) + 1 :]
        following = next((p for p in later if p.variant != phase.variant), None)
        if now is None or following is None or self._reduced:
            return
        variant = self.plan.variants[following.variant]
        if variant in self.loaded:
            return
        if now.ahead is not None:
            current = self.plan.variants[phase.variant]
            self._evict(now.need + now.beside, self.budget or 0, {current})
        if self._prepare(following, now.ahead) and now.ahead is not None:
            self.loaded = {variant: now.beside, **self.loaded}

    def _prepare(self, phase: PlannedPhase, ahead: tuple[int, ...] | None) -> bool:
        """Begin to read a phase's model; ``ahead`` is what may be on the device already."""
        variant, placement = self.plan.variants[phase.variant], self._placement(phase)
        if placement is None or variant in self.loaded:
            return False
        error = attempt(
            lambda: variant.prepare(self.plan.device, phase.compute, placement, self.pool, ahead)
        )
        if error is not None:  # it comes when it is needed
            log.debug("%s is not brought in ahead: %s", phase.variant, error)
            variant.unload()
            return False
        self._begun.add(variant)
        return True

    def _reduce(self, phase: PlannedPhase, error: str) -> None:
        """Everything leaves, and the phase's model comes back streamed as far as it can be.

        Raises GatekitError where that was done before, or cannot be.
        """
        placement, variant = self._placement(phase), self.plan.variants[phase.variant]
        if placement is None or phase.name in self._reduced:
            raise self._too_large(phase, error)
        least = min(ways(Demand(placement.key, placement.footprint)), key=lambda way: way.need)
        if placement.streamed == least.streamed:
            raise self._too_large(phase, error)
        used = placement.need + placement.beside
        self._reduced[phase.name] = least
        for other in {*self.loaded, *self._begun, variant}:
            other.unload()
        self.loaded.clear()
        self._begun.clear()
        log.warning(
            "phase %s ran out of memory on %s (%s); its model is streamed from here on, which is "
            "slower; plan for it with --set memory.vram=%s",
            *(phase.name, self.plan.device, error),
            as_setting(max(least.need, int(used * LESS))),
        )
        again = attempt(lambda: self._bring(phase))
        if again is not None:
            variant.unload()
            raise self._too_large(phase, again)
        self.loaded[variant] = least.weights

    def _too_large(self, phase: PlannedPhase, error: str) -> GatekitError:
        need = size(self._bytes(phase))
        where = "even streamed" if phase.name in self._reduced else "in one piece"
        return GatekitError(
            f"variant {phase.variant!r} does not fit into the memory of {self.plan.device}: "
            f"about {need} of weights, {where} ({error})",
            remedy="use a smaller quantisation or video, or another device: --set device=cpu",
        )


def attempt(call: Callable[[], object]) -> str | None:
    """What an error for lack of memory says; None where there was none. Others are raised."""
    try:
        call()
    except (MemoryError, RuntimeError) as exc:
        if not out_of_memory(exc):
            raise
        return str(exc).partition("\n")[0] or type(exc).__name__
    return None


def out_of_memory(exc: BaseException) -> bool:
    """Whether an exception says that memory ran out, torch's or a library's."""
    named = isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError"
    return named or "STATUS_ALLOC_FAILED" in str(exc)


def decoded(
    loaded: dict[ModelVariant, int],
    device: str,
    call: Callable[[], T],
    tiled: Callable[[], T] | None = None,
) -> T:
    """What ``call`` makes of a latent; where memory runs out, again without models, then ``tiled``.

    Raises:
        GatekitError: Memory does not suffice.
    """
    found: list[T] = []
    error = attempt(lambda: found.append(call()))
    if error is not None and loaded:
        log.warning("decoding ran out of memory on %s (%s); models leave for it", device, error)
        for variant in loaded:
            variant.unload()
        loaded.clear()
        error = attempt(lambda: found.append(call()))
    if error is not None and tiled is not None:
        log.warning(
            "decoding ran out of memory on %s (%s); once more in tiles of %d pixels, which may "
            "change its last bits; ask for them with --set vae.tile=%d",
            *(device, error, TILE, TILE),
        )
        with contextlib.suppress(
            InputError
        ):  # this VAE has no tiles as small: the first error stays
            error = attempt(lambda: found.append(tiled()))
    if error is not None:
        raise GatekitError(
            f"decoding does not fit into the memory of {device} ({error}); the latent is kept",
            remedy="set 'vae.tile' to fewer pixels, or decode elsewhere: --set vae.device=cpu",
        )
    return found[0]
