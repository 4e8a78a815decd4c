"""Placement: which weights are where during each phase. Numbers in, decisions out.

Of every phase's model each block is either resident, or streamed: copied anew in every pass into
one of ``SLOTS`` places that the streamed blocks share, while the block before it computes. What a
phase leaves of the memory takes the next model's first blocks, and models that come again.

Every way to do it has a cost in bytes copied: each pass copies what is streamed, and a switch what
is resident and not there yet. Of the ways that fit, the cheapest is taken. A larger limit only
adds ways, so it never makes a plan dearer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

SLOTS = 2


class TooLittleError(Exception):
    """No placement fits.

    Attributes:
        demand: Number of the demand that needs the most.
        least: Bytes that would do for all of them.
    """

    def __init__(self, demand: int, least: int) -> None:
        super().__init__(f"demand {demand} needs {least} bytes")
        self.demand, self.least = demand, least


@dataclass(frozen=True)
class Footprint:
    """What a model takes on its device.

    Attributes:
        fixed: Bytes that are always there: all that is not in ``blocks``.
        blocks: Bytes of each block that can be streamed, in order of use.
        working: Bytes beside the weights while it runs: activations, one decoded matrix.
        at_once: Whether it is loaded in one go where no block is streamed, so that nothing of it
            is brought in ahead.
    """

    fixed: int
    blocks: tuple[int, ...] = ()
    working: int = 0
    at_once: bool = False

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return self.fixed + sum(self.blocks)


@dataclass(frozen=True)
class Demand:
    """One phase: what it needs, and how often.

    Attributes:
        key: What is loaded; two demands of one key share it.
        footprint: What it takes.
        passes: Times that it goes through all of its blocks.
    """

    key: str
    footprint: Footprint
    passes: int = 1


@dataclass(frozen=True)
class Placement:
    """What is where during one phase.

    Attributes:
        key: What is loaded for it.
        footprint: What that takes when all of it is there.
        streamed: Blocks that are copied in every pass, ascending.
        slots: Places that they share.
        next: What is loaded after it; None where nothing else is.
        ahead: Blocks of ``next`` that are brought in meanwhile, in order of use; with what is
            always there of it. None brings nothing in.
        beside: Bytes of ``next`` that are there meanwhile.
        keeps: What stays loaded beside it because a later phase needs it again.
    """

    key: str
    footprint: Footprint
    streamed: tuple[int, ...] = ()
    slots: int = 0
    next: str | None = None
    ahead: tuple[int, ...] | None = None
    beside: int = 0
    keeps: tuple[str, ...] = ()

    @cached_property
    def resident(self) -> tuple[int, ...]:
        """Blocks that stay where they are, ascending."""
        streamed = set(self.streamed)
        return tuple(i for i in range(len(self.footprint.blocks)) if i not in streamed)

    @property
    def pass_bytes(self) -> int:
        """Bytes copied in every pass."""
        return sum(self.footprint.blocks[i] for i in self.streamed)

    @property
    def load_bytes(self) -> int:
        """Bytes to bring in before everything resident is there."""
        return self.footprint.weights - self.pass_bytes

    @property
    def weights(self) -> int:
        """Bytes of weights on the device: what is resident, and the slots."""
        sizes = self.footprint.blocks
        return self.load_bytes + self.slots * max((sizes[i] for i in self.streamed), default=0)

    @property
    def need(self) -> int:
        """Bytes on the device while it runs, without what is brought in for the next."""
        return self.weights + self.footprint.working


def spread(count: int, blocks: int) -> tuple[int, ...]:
    """``count`` of ``blocks`` numbers, evenly apart and as late as that allows.

    So each streamed block has those between it and the one before to be copied behind.
    """
    return tuple((j + 1) * blocks // count - 1 for j in range(count))


def ways(demand: Demand) -> list[Placement]:
    """Every placement worth a thought, the least streamed first."""
    blocks = len(demand.footprint.blocks)
    found = [Placement(demand.key, demand.footprint)]
    for count in range(SLOTS + 1, blocks + 1):
        found.append(Placement(demand.key, demand.footprint, spread(count, blocks), slots=SLOTS))
    return found


def least(demands: Sequence[Demand]) -> int:
    """Bytes that the demands cannot do without."""
    return max(min(way.need for way in ways(demand)) for demand in demands)


def place(demands: Sequence[Demand], limit: float = inf) -> tuple[Placement, ...]:
    """The cheapest placements, one for each demand.

    Args:
        demands: The phases, in order.
        limit: Bytes of the device that may be used.

    Raises:
        TooLittleError: Not even streaming everything fits.
    """
    fitting = [[way for way in ways(demand) if way.need <= limit] for demand in demands]
    if not all(fitting):
        worst = min(
            (i for i, found in enumerate(fitting) if not found),
            key=lambda i: -min(way.need for way in ways(demands[i])),
        )
        raise TooLittleError(worst, least(demands))
    # Cheapest chain that ends in each way of the demand at hand (Viterbi).
    chains: list[tuple[float, list[Placement]]] = [
        (way.load_bytes + demands[0].passes * way.pass_bytes, [way]) for way in fitting[0]
    ]
    for demand, found in zip(demands[1:], fitting[1:], strict=True):
        chains = [_extend(chains, way, demand, limit) for way in found]
    _, chain = min(chains, key=lambda chain: chain[0])
    return _with_keeps(chain, limit)


def cost(demands: Sequence[Demand], placements: Sequence[Placement]) -> int:
    """Bytes copied, as ``place`` counts them."""
    total = placements[0].load_bytes
    for before, after in itertools.pairwise(placements):
        total += _switch(before, after)
    return total + sum(d.passes * p.pass_bytes for d, p in zip(demands, placements, strict=True))


def _switch(before: Placement, after: Placement) -> int:
    """Bytes that entering ``after`` has to bring in."""
    if before.key == after.key:
        return 0 if before.streamed == after.streamed else after.load_bytes
    return after.load_bytes - (_parts(after, before.ahead) if before.ahead is not None else 0)


def _parts(after: Placement, ahead: Sequence[int]) -> int:
    return after.footprint.fixed + sum(after.footprint.blocks[i] for i in ahead)


def _extend(
    chains: Sequence[tuple[float, list[Placement]]], way: Placement, demand: Demand, limit: float
) -> tuple[float, list[Placement]]:
    """The cheapest chain with one way more."""
    best: tuple[float, list[Placement]] | None = None
    for spent, chain in chains:
        last = _ahead(chain[-1], way, limit)
        total = spent + _switch(last, way) + demand.passes * way.pass_bytes
        if best is None or total < best[0]:
            best = total, [*chain[:-1], last, way]
    assert best is not None
    return best


def _ahead(before: Placement, after: Placement, limit: float) -> Placement:
    """``before``, with as much of ``after`` beside it as fits."""
    if before.key == after.key:
        return before
    blocks, room = after.footprint.blocks, limit - before.need
    if after.footprint.at_once and not after.streamed:
        return _but(before, after.key, None, 0)
    if after.footprint.fixed > room or limit == inf:
        return _but(before, after.key, None, 0)
    room -= after.footprint.fixed
    taken: list[int] = []
    for i in after.resident:
        if blocks[i] > room:
            break
        room -= blocks[i]
        taken.append(i)
    return _but(before, after.key, tuple(taken), _parts(after, taken))


def _but(
    given: Placement, following: str | None, ahead: tuple[int, ...] | None, beside: int
) -> Placement:
    return Placement(
        given.key, given.footprint, given.streamed, given.slots, following, ahead, beside
    )


def _with_keeps(chain: Sequence[Placement], limit: float) -> tuple[Placement, ...]:
    """The chain, with what stays beside each because it comes again, the soonest first."""
    done: list[Placement] = []
    there: dict[str, Placement] = {}
    for at, now in enumerate(chain):
        room = limit - now.need - now.beside
        keeps: list[str] = []
        for later in chain[at + 1 :]:
            held = there.get(later.key)
            wanted = held is not None and held.streamed == later.streamed == ()
            if not wanted or later.key in (now.key, now.next, *keeps) or later.weights > room:
                continue
            keeps.append(later.key)
            room -= later.weights
        there = {key: there[key] for key in keeps} | {now.key: now}
        done.append(
            Placement(
                *(now.key, now.footprint, now.streamed, now.slots, now.next, now.ahead),
                beside=now.beside,
                keeps=tuple(keeps),
            )
        )
    return tuple(done)
