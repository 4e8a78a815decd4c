"""What is loaded, what it is given, and where it runs."""

from __future__ import annotations

import sys

import pytest
import torch

import gatekit
import gatekit.device as device
import gatekit.residency as residency
from gatekit import InputError, Inputs, NoiseSource, Warm, hookimpl, load_schedule
from gatekit.registry import registry


def run(project, *overrides):
    plan = gatekit.resolve(load_schedule(project / "fake.yaml", list(overrides)))
    return plan, gatekit.run(plan, Inputs(prompt="x", seed=4))


@pytest.mark.parametrize(("compute", "stays"), [("bf16", True), ("fp32", False)])
def test_arithmetic_in_fp32_takes_twice_the_memory(project, fake, compute, stays):
    fake.LOG.clear()
    both = [f"phases.{name}.compute={compute}" for name in ("high", "low")]
    run(project, "memory.vram=24B", *both)  # 8 B each in bf16, of which 18 B may be used
    assert (fake.LOG.index("unload coarse") > fake.LOG.index("load fine")) == stays


def test_a_model_that_was_streamed_leaves_at_the_switch(project, fake, monkeypatch):
    """Beside the next one it would only hold host memory, with blocks that it read ahead."""

    def footprint(self, compute, latent):
        return gatekit.Footprint(0, (4,) * 6 if self.params.file.stem == "coarse" else (1,) * 3)

    monkeypatch.setattr(fake.Number, "footprint", footprint)
    fake.LOG.clear()
    plan, _ = run(project, "memory.vram=23B")
    coarse, fine = residency.memory_plan(plan, 23).phases
    assert coarse.streamed and coarse.weights + fine.need <= 23
    assert fake.LOG.index("unload coarse") < fake.LOG.index("load fine")


def test_more_than_is_free_is_not_taken(project, fake, monkeypatch):
    monkeypatch.setattr(residency, "free_bytes", lambda device: 20)
    fake.LOG.clear()
    run(project, "memory.vram=1GiB")
    assert fake.LOG[1:3] == ["load coarse", "unload coarse"]


def test_what_was_loaded_when_memory_ran_out_is_given_back(project, fake, monkeypatch):
    load = fake.Number.load

    def half(self, device, compute):
        load(self, device, compute)
        raise MemoryError

    monkeypatch.setattr(fake.Number, "load", half)
    fake.LOG.clear()
    with pytest.raises(gatekit.GatekitError, match="does not fit"):
        run(project)
    assert fake.LOG[-1] == "unload coarse"


def test_the_first_state_on_a_variance_exploding_path_has_its_sigma(project, fake, monkeypatch):
    monkeypatch.setattr(fake.FakeFamily, "path", "ve")
    started = []

    class Watcher:
        @hookimpl
        def gatekit_run_start(self, state):
            started.append(state.x)

    registry().register(Watcher(), "watcher")
    try:
        run(project, "sigmas={use: karras, steps: 8, sigma_max: 14}")
    finally:
        registry().remove("watcher")
    noise = NoiseSource(4).normal(started[0].shape, step=0, purpose="start")
    assert torch.equal(started[0], 14.0 * noise)


def test_a_guidance_that_needs_what_the_family_does_not_give(project, fake, monkeypatch):
    monkeypatch.setattr(fake.FakeFamily, "encode", lambda self, *_: {"positive": fake.Prompt(0.1)})
    with pytest.raises(InputError, match="guidance 'cfg' needs a conditioning 'negative'"):
        run(project)


@pytest.mark.parametrize(("visible", "found"), [("", "cpu"), ("-1", "cpu"), ("0", "cuda")])
def test_a_hidden_gpu_is_none(monkeypatch, visible, found):
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(device, "_torch_has_cuda", lambda: True)
    monkeypatch.setattr(device, "DRIVERS", ("/",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device.default_device() == found


@pytest.mark.parametrize("tile", ["auto", 256])
def test_decoding_is_tried_once_in_tiles(project, fake, monkeypatch, caplog, tile):
    decode, tiles = fake.FakeFamily.decode, []

    def short(self, latent, video, device):
        tiles.append(self.components.vae.tile)
        if tiles[-1] == "auto" or tile == 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(self, latent, video, device)

    whole = run(project)[1].video
    monkeypatch.setattr(fake.FakeFamily, "decode", short)
    plan = gatekit.resolve(load_schedule(project / "fake.yaml", [f"vae.tile={tile}"]))
    if tile == 256:
        with pytest.raises(gatekit.GatekitError, match="decoding does not fit"):
            gatekit.run(plan, Inputs(prompt="x", seed=4))
        assert tiles == [256], "smaller tiles are not invented"
        return
    assert torch.equal(gatekit.run(plan, Inputs(prompt="x", seed=4)).video, whole)
    assert tiles == ["auto", 256] and plan.family.components.vae.tile == "auto"
    assert "once more in tiles of 256 pixels" in caplog.text


def test_a_vae_without_such_tiles_keeps_the_first_error(project, fake, monkeypatch):
    def short(self, latent, video, device):
        if self.components.vae.tile == 256:
            raise InputError("a tile must hold its border", remedy="at least 500 pixels")
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fake.FakeFamily, "decode", short)
    with pytest.raises(gatekit.GatekitError, match=r"decoding does not fit .*CUDA out of memory"):
        run(project)


@pytest.mark.parametrize("warm", [True, False])
def test_decoding_that_runs_out_of_memory(project, fake, monkeypatch, warm, tmp_path):
    """With models still loaded, they leave for it; without, the latent is there all the same."""
    decode, kept = fake.FakeFamily.decode, Warm() if warm else None

    def short(self, latent, video, device):
        if not warm or kept.loaded:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(self, latent, video, device)

    expected = run(project)[1]
    monkeypatch.setattr(fake.FakeFamily, "decode", short)
    plan = gatekit.resolve(load_schedule(project / "fake.yaml", ["memory.vram=1GiB"]))
    if warm:
        found = gatekit.run(plan, Inputs(prompt="x", seed=4), warm=kept)
        assert torch.equal(found.video, expected.video) and not kept.loaded
        return
    with pytest.raises(gatekit.GatekitError, match="decoding does not fit"):
        gatekit.run(plan, Inputs(prompt="x", seed=4), run_dir=tmp_path / "run")
    assert (tmp_path / "run" / "latent.safetensors").is_file()


def test_libraries_that_run_out_of_memory_are_understood():
    assert residency.out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling ..."))
    assert not residency.out_of_memory(RuntimeError("shapes differ"))
