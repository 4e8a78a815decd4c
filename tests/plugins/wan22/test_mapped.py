"""Mapped weights whose file is cut short: an error; to touch the map would end the process."""

from __future__ import annotations

import os

import pytest
import torch

from gatekit import WeightsError
from gatekit_wan22.header import Header, TensorInfo
from gatekit_wan22.mapped import MappedFile

PAGE = 1 << 16


@pytest.fixture
def stored(tmp_path):
    """A file of two tensors, and the second of them."""
    path = tmp_path / "w"
    values = torch.randn(2 * PAGE)
    path.write_bytes(values.numpy().tobytes())
    info = TensorInfo(name="b", type="F32", shape=(PAGE,), offset=4 * PAGE, nbytes=4 * PAGE)
    return path, info, values[PAGE:]


def opened(path, info):
    return MappedFile(Header(path, "safetensors", path.stat().st_size, {info.name: info}, {}))


def test_what_is_read_is_what_is_mapped(stored):
    path, info, values = stored
    assert opened(path, info).raw(info).view(torch.float32).equal(values)
    assert opened(path, info).raw(info, "meta").shape == (4 * PAGE,)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_file_cut_after_it_was_mapped(stored, device):
    path, info, _ = stored
    mapped = opened(path, info)
    assert mapped.raw(info).shape == (4 * PAGE,)
    os.truncate(path, 5 * PAGE)
    with pytest.raises(WeightsError, match="ends before the weights that its header lists"):
        mapped.raw(info, device)


def test_a_file_cut_before_it_is_mapped(stored):
    path, info, _ = stored
    mapped = opened(path, info)
    os.truncate(path, 5 * PAGE)
    with pytest.raises(WeightsError, match="ends before"):
        mapped.raw(info)


def test_a_file_that_is_gone(stored):
    path, info, values = stored
    mapped = opened(path, info)
    mapped.raw(info)
    path.unlink()
    assert mapped.raw(info).view(torch.float32).equal(values), "what is mapped stays"
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        mapped.raw(info, "meta")
