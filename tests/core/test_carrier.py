"""Carrier: the right bytes in the right order, in little memory, and no thread left behind."""

from __future__ import annotations

import threading
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit.cargo import Piece
from gatekit.carrier import Carrier
from gatekit.chunks import LEAST, ChunkPool
from gatekit.errors import GatekitError, WeightsError

BYTES = torch.randint(0, 256, (20_000,), dtype=torch.uint8, generator=torch.Generator())


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("carrier") / "weights"
    path.write_bytes(bytes(BYTES.tolist()))
    return path


@pytest.fixture
def carry():
    """Makes carriers; checks that none leaves a thread."""
    made = []

    def make(limit=4096, size=512, most=None):
        pool = ChunkPool(limit, pinned=False, size=size)
        made.append((Carrier("cpu", pool, most), pool))
        return made[-1]

    before = set(threading.enumerate())
    yield make
    for carrier, _ in made:
        carrier.close()
    assert set(threading.enumerate()) <= before


def pieces(file, *spans):
    return [Piece(file, o, n, torch.full((n,), 7, dtype=torch.uint8)) for o, n in spans]


def arrived(given):
    return all(torch.equal(p.into, BYTES[p.offset : p.offset + p.into.numel()]) for p in given)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 15_000), st.integers(1, 5_000)), min_size=1, max_size=6),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([64, 512, 4096]),
)
def test_every_byte_arrives(file, loads, size):
    pool = ChunkPool(LEAST * size, pinned=False, size=size)
    carrier = Carrier("cpu", pool)
    try:
        sent = [(carrier.send(found), found) for found in (pieces(file, *spans) for spans in loads)]
        for load, found in sent:
            carrier.wait(load)
            assert arrived(found)
        assert carrier.read_bytes == sum(n for spans in loads for _, n in spans)
        assert pool.bytes <= LEAST * size
    finally:
        carrier.close()


def test_what_is_not_open_is_read_but_not_copied(carry, file):
    carrier, _pool = carry()
    (piece,) = pieces(file, (100, 900))
    load = carrier.send([piece], open=False)
    wait_for(lambda: carrier.read_bytes == 900)
    assert (piece.into == 7).all() and not load.arrived
    carrier.open(load)
    carrier.wait(load)
    assert arrived([piece])


def test_reading_ahead_stops_at_its_share_of_the_memory(carry, file):
    carrier, pool = carry(limit=4096, size=512, most=3)
    load = carrier.send(pieces(file, (0, 10_000)), open=False)
    wait_for(lambda: carrier.read_bytes == 3 * 512)
    time.sleep(0.05)
    assert carrier.read_bytes == 3 * 512 == pool.bytes
    carrier.open(load)
    carrier.wait(load)


def test_what_is_read_does_not_wait_for_all_of_the_memory(file):
    pool = ChunkPool(16 * 512, pinned=False, size=512)
    make = pool._make
    pool._make = lambda: (time.sleep(0.02), make())[1]  # pinned memory takes as long
    carrier = Carrier("cpu", pool)
    try:
        first = carrier.send(pieces(file, (0, 512)))
        last = carrier.send(pieces(file, (0, 9_000)))
        carrier.wait(first)
        assert pool.made < 16
        carrier.wait(last)
    finally:
        carrier.close()


def test_two_carriers_share_the_memory(carry, file):
    carrier, pool = carry(limit=4096, size=512, most=4)
    other = Carrier("cpu", pool)
    try:
        parked = carrier.send(pieces(file, (0, 9_000)), open=False)
        wait_for(lambda: carrier.read_bytes == 4 * 512)
        found = pieces(file, (3, 9_000))
        other.wait(other.send(found))
        assert arrived(found) and pool.bytes <= 4096
        carrier.open(parked)
        carrier.wait(parked)
    finally:
        other.close()


def test_what_decodes_runs_when_its_bytes_are_there(carry, file):
    carrier, _ = carry()
    seen = []
    into = torch.zeros(3_000, dtype=torch.uint8)
    piece = Piece(file, 5, 3_000, into, lambda: seen.append(into.clone()))
    carrier.wait(carrier.send([piece]))
    assert len(seen) == 1 and torch.equal(seen[0], BYTES[5:3_005])


def test_a_dropped_load_makes_way(carry, file):
    carrier, _pool = carry(limit=2048, size=512)
    closed = carrier.send(pieces(file, (0, 9_000)), open=False)
    wait_for(lambda: carrier.read_bytes >= 2048)
    found = pieces(file, (7, 9_000))
    carrier.drop([closed])
    carrier.wait(carrier.send(found))
    assert arrived(found) and not closed.arrived


def test_a_file_that_ends_early_is_one_clear_error(carry, file):
    carrier, _ = carry()
    load = carrier.send(pieces(file, (19_000, 4_000)))
    with pytest.raises(WeightsError, match="ends before the weights"):
        carrier.wait(load)
    with pytest.raises(WeightsError):  # and for all that comes after it
        carrier.wait(carrier.send(pieces(file, (0, 10))))


def test_a_file_that_is_gone_is_one_clear_error(carry, tmp_path):
    carrier, _ = carry()
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        carrier.wait(carrier.send(pieces(tmp_path / "none", (0, 4))))


def test_a_failure_of_the_thread_itself_is_told(carry, file):
    carrier, _ = carry()

    def fail():
        raise ValueError("broken decoder")

    with pytest.raises(GatekitError, match="broken decoder"):
        carrier.wait(carrier.send([Piece(file, 0, 9, torch.zeros(9, dtype=torch.uint8), fail)]))


def test_memory_that_runs_out_keeps_its_name(carry, file):
    carrier, _ = carry()

    def fail():
        raise torch.OutOfMemoryError("no memory")

    with pytest.raises(torch.OutOfMemoryError):
        carrier.wait(carrier.send([Piece(file, 0, 9, torch.zeros(9, dtype=torch.uint8), fail)]))


def test_closing_ends_what_waits(carry, file):
    carrier, pool = carry()
    load = carrier.send(pieces(file, (0, 9_000)), open=False)
    carrier.close()
    carrier.close()
    with pytest.raises(GatekitError, match="unloaded"):
        carrier.wait(load)
    pool.close()
    assert pool.bytes == 0


def test_expected_ranges_need_not_be_there(carry, file, tmp_path):
    carrier, _ = carry()
    carrier.expect([(file, 0, 20_000), (tmp_path / "none", 0, 10)])
    found = pieces(file, (0, 100))
    carrier.wait(carrier.send(found))
    assert arrived(found)


def test_reading_does_not_wait_for_what_is_only_expected(file, monkeypatch):
    monkeypatch.setattr("gatekit.carrier.READERS", 1)
    slow = threading.Event()
    carrier = Carrier("cpu", ChunkPool(LEAST * 512, pinned=False, size=512))
    carrier._files.expect = lambda *_: slow.wait(10)
    try:
        carrier.expect([(file, 0, 1_000)])
        load = carrier.send(pieces(file, (0, 700)))
        wait_for(lambda: load.arrived)
    finally:
        slow.set()
        carrier.close()


def test_host_memory_that_cannot_be_had_is_one_clear_error(carry, file, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("CUDA error: out of memory\nmore lines")

    carrier, _pool = carry()
    found = pieces(file, (0, 700))
    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(GatekitError, match=r"memory to read weights through.*memory\.ram=4MiB"):
        carrier.wait(carrier.send(found))


@pytest.mark.parametrize("limit", [LEAST, 100, 4096])
def test_a_pool_never_makes_more_than_its_limit(limit):
    pool = ChunkPool(limit, pinned=False, size=1024)
    taken = []
    while (chunk := pool.take(wait=True)) is not None:
        taken.append(chunk)
    assert len(taken) >= LEAST and sum(c.memory.numel() for c in taken) <= limit
    pool.give(taken.pop())
    assert pool.take(wait=False) is not None


def wait_for(true, seconds=5.0):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.002)
