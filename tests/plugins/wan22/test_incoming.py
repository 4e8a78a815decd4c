"""Tensors that are read ahead: every byte, in any order of asking, and errors of files."""

import threading

import pytest
import torch

from gatekit import ChunkPool, GatekitError, WeightsError
from gatekit_wan22 import incoming
from gatekit_wan22.header import TensorInfo
from gatekit_wan22.incoming import Incoming
from gatekit_wan22.mapped import MappedFile


@pytest.fixture
def stored(tmp_path, monkeypatch):
    monkeypatch.setattr(incoming, "SMALL", 8)
    monkeypatch.setattr(incoming, "AHEAD", 5000)
    content = torch.randint(0, 256, (60_000,), dtype=torch.uint8)
    path = tmp_path / "weights.bin"
    path.write_bytes(content.numpy().tobytes())
    sizes = [7, 4000, 1, 9000, 300, 300, 20_000, 12]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    infos = [
        TensorInfo(f"t{i}", (n,), "F32", at, n)
        for i, (n, at) in enumerate(zip(sizes, starts, strict=True))
    ]
    return path, infos, content


def test_every_byte_arrives_and_small_ones_are_left(stored):
    path, infos, content = stored
    coming = Incoming(((path, i) for i in infos), "cpu")
    try:
        for info in infos:
            found = coming.take(path, info)
            if info.nbytes < 8:
                assert found is None
            else:
                assert torch.equal(found, content[info.offset : info.offset + info.nbytes])
    finally:
        coming.close()


def test_without_memory_for_the_way_each_is_left_to_be_read_by_itself(stored, monkeypatch):
    path, infos, content = stored
    kept = ChunkPool._make

    def make(pool):
        if pool.made > 1:
            raise GatekitError("no pinned host memory", remedy="allow less")
        return kept(pool)

    monkeypatch.setattr(ChunkPool, "_make", make)
    monkeypatch.setattr(incoming, "PINNED", 16_000)  # in chunks smaller than the largest tensor
    before = set(threading.enumerate())
    coming = Incoming(((path, i) for i in infos), "cpu")
    found = [(i, coming.take(path, i)) for i in infos]
    coming.close()
    assert found[-1][1] is None
    for info, came in found:
        expected = content[info.offset : info.offset + info.nbytes]
        assert came is None or torch.equal(came, expected)
    assert set(threading.enumerate()) == before


def test_it_comes_where_a_caller_is_in_inference_mode(stored):
    path, infos, content = stored
    with torch.inference_mode():
        coming = Incoming(((path, i) for i in infos), "cpu")
        try:
            found = coming.take(path, infos[1])
        finally:
            coming.close()
    assert torch.equal(found, content[7:4007])


def test_what_is_asked_for_out_of_turn_is_left_or_comes(stored):
    path, infos, content = stored
    coming = Incoming(((path, i) for i in infos), "cpu")
    try:
        assert coming.take(path, infos[6]) is None  # beyond what is read ahead
        for info in (infos[3], infos[1]):
            found = coming.take(path, info)
            assert torch.equal(found, content[info.offset : info.offset + info.nbytes])
    finally:
        coming.close()


def test_a_file_that_ends_before_is_an_error(stored):
    path, infos, _ = stored
    path.write_bytes(path.read_bytes()[:15_000])
    coming = Incoming(((path, i) for i in infos), "cpu")
    try:
        with pytest.raises(WeightsError, match="ends before the weights"):
            for info in infos:
                coming.take(path, info)
    finally:
        coming.close()


def test_a_model_is_filled_the_same_way(wan, tools, inputs, monkeypatch):
    from gatekit_wan22 import WanConditioning, mapped

    variant = tools.open_file(wan.path)
    variant.load("cpu", "fp32")
    condition = WanConditioning(text=inputs.text)
    plain = variant.velocity(inputs.x, inputs.sigma, condition)
    variant.unload()

    taken = []

    class Watched(Incoming):
        def take(self, path, info):
            found = super().take(path, info)
            taken.append(found is not None)
            return found

    class OnGpu(MappedFile):  # what a GPU's file does, with a CPU's memory
        def coming(self, infos, device):
            return super().coming(infos, "cpu:0")

        def raw(self, info, device="cpu"):
            return super().raw(info, "cpu:0")

    monkeypatch.setattr(incoming, "SMALL", 64)
    monkeypatch.setattr(mapped, "Incoming", Watched)
    monkeypatch.setattr(mapped, "MappedFile", OnGpu)
    variant.load("cpu", "fp32")
    assert sum(taken) > len(taken) / 3
    assert torch.equal(variant.velocity(inputs.x, inputs.sigma, condition), plain)
