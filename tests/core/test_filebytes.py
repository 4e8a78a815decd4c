"""Bytes of a file read into memory: what arrives, and what is said where they do not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import gatekit
from gatekit.filebytes import Files

OPEN = Path("/proc/self/fd")
CONTENT = os.urandom(5000)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "w"
    file.write_bytes(CONTENT)
    return file


@pytest.mark.parametrize(("offset", "count"), [(0, 5000), (17, 4983), (4999, 1), (300, 0)])
def test_all_of_the_memory_is_filled(path, offset, count):
    memory = bytearray(b"?" * count)
    gatekit.read_into(path, offset, memoryview(memory))
    assert memory == CONTENT[offset : offset + count]


def test_a_read_may_come_in_pieces(path, monkeypatch):
    some = Files._some
    monkeypatch.setattr(Files, "_some", lambda s, p, at, into: some(s, p, at, into[:700]))
    memory = bytearray(4000)
    gatekit.read_into(path, 1000, memoryview(memory))
    assert memory == CONTENT[1000:]


def test_a_file_that_ends_before(path):
    with pytest.raises(gatekit.WeightsError) as caught:
        gatekit.read_into(path, 4000, memoryview(bytearray(1001)))
    assert str(caught.value) == str(gatekit.cut_short(path))
    assert f"{path}: ends before the weights that its header lists" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(gatekit.WeightsError, match=r"cannot be read: No such file.*check the disk"):
        gatekit.read_into(tmp_path / "none", 0, memoryview(bytearray(1)))


@pytest.mark.skipif(not OPEN.is_dir(), reason="open files are listed on Linux")
@pytest.mark.parametrize("offset", [0, 4999])
def test_no_file_stays_open(path, offset):
    before = set(OPEN.iterdir())
    try:
        gatekit.read_into(path, offset, memoryview(bytearray(2)))
    except gatekit.WeightsError:
        assert offset
    assert set(OPEN.iterdir()) == before
