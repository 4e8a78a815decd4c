"""Placement: properties that hold whatever the numbers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekit.placement import (
    SLOTS,
    Demand,
    Footprint,
    TooLittleError,
    cost,
    least,
    place,
    spread,
)

sizes = st.integers(1, 50)
footprints = st.builds(
    Footprint, st.integers(0, 40), st.lists(sizes, max_size=9).map(tuple), st.integers(0, 30)
)


@st.composite
def demands(draw):
    """Phases of up to three models, which may come again."""
    models = draw(st.dictionaries(st.sampled_from("abc"), footprints, min_size=1))
    keys = draw(st.lists(st.sampled_from(sorted(models)), min_size=1, max_size=5))
    return [Demand(key, models[key], draw(st.integers(1, 6))) for key in keys]


def occupied(placements):
    """Bytes on the device during each phase."""
    by_key = {p.key: p for p in placements}
    return [p.need + p.beside + sum(by_key[key].weights for key in p.keeps) for p in placements]


@given(demands(), st.integers(0, 200))
def test_the_limit_is_never_exceeded(phases, more):
    limit = least(phases) + more
    assert all(bytes_ <= limit for bytes_ in occupied(place(phases, limit)))


@given(demands(), st.integers(0, 200))
def test_every_block_is_resident_or_streamed(phases, more):
    for phase, found in zip(phases, place(phases, least(phases) + more), strict=True):
        blocks = range(len(phase.footprint.blocks))
        assert sorted((*found.resident, *found.streamed)) == list(blocks)
        assert found.key == phase.key and found.slots == (SLOTS if found.streamed else 0)


@given(demands(), st.integers(0, 200))
def test_what_is_brought_in_is_what_the_next_phase_holds(phases, more):
    placements = place(phases, least(phases) + more)
    for now, after in itertools.pairwise(placements):
        if now.key == after.key:
            assert now.ahead is None and now.streamed == after.streamed
        elif now.ahead is not None:
            assert now.next == after.key
            assert now.ahead == after.resident[: len(now.ahead)]
            held = sum(after.footprint.blocks[i] for i in now.ahead)
            assert now.beside == after.footprint.fixed + held


@given(demands(), st.integers(0, 200))
def test_what_is_loaded_at_once_is_not_brought_in_ahead(phases, more):
    whole = [replace(d, footprint=replace(d.footprint, at_once=True)) for d in phases]
    limit = least(phases) + more
    placements = place(whole, limit)
    assert all(bytes_ <= limit for bytes_ in occupied(placements))
    for now, after in itertools.pairwise(placements):
        assert after.streamed or (now.ahead is None and now.beside == 0)


@given(demands(), st.integers(0, 200))
def test_what_is_kept_was_loaded_and_comes_again_as_it_is(phases, more):
    placements = place(phases, least(phases) + more)
    for i, now in enumerate(placements):
        for key in now.keeps:
            assert i and (placements[i - 1].key == key or key in placements[i - 1].keeps)
            later = next(p for p in placements[i + 1 :] if p.key == key)
            assert not later.streamed


@given(demands(), st.integers(0, 200), st.integers(0, 200))
def test_more_memory_is_never_dearer(phases, more, still_more):
    limit = least(phases) + more
    tight, wide = place(phases, limit), place(phases, limit + still_more)
    assert cost(phases, wide) <= cost(phases, tight)


@given(demands())
def test_less_than_the_least_is_refused(phases):
    needed = least(phases)
    with pytest.raises(TooLittleError) as caught:
        place(phases, needed - 1)
    assert caught.value.least == needed
    assert place(phases, needed)


@given(demands())
def test_with_enough_memory_nothing_is_streamed_and_every_switch_is_free(phases):
    placements = place(phases, 10_000)
    assert not any(p.streamed for p in placements)
    assert cost(phases, placements) == placements[0].load_bytes


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_streamed_blocks_lie_evenly(sizes):
    count, blocks = sizes
    found = spread(count, blocks)
    gaps = [b - a for a, b in zip((-1, *found), found, strict=False)]
    assert len(set(found)) == count and found[-1] == blocks - 1
    assert max(gaps) - min(gaps) <= 1


def test_two_experts_of_wan_in_16_gib():
    gib = 1 << 30
    expert = Footprint(gib, (int(0.665 * gib),) * 40, 4 * gib)
    both = [Demand("high", expert, 16), Demand("low", expert, 24)]
    now, after = place(both, 16 * gib)
    assert len(now.streamed) == len(after.streamed) == 26  # 11 GiB - fixed - 2 slots = 14 blocks
    now, after = place(both, 48 * gib)
    assert now.streamed == after.streamed == ()
    assert len(now.ahead) == 23  # 48 - 4 - 27.6 - 1 = 15.4 GiB


def test_a_long_chain_takes_no_time():
    expert = Footprint(1, (7,) * 40, 4)
    phases = [Demand("ab"[i % 2], expert, 3) for i in range(12)]
    assert len(place(phases, 150)) == 12
