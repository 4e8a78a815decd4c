"""The quickstart within little memory: the same bits, no thread left, the state never lost."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch

import gatekit
import gatekit_tinywan
from gatekit import GatekitError, Inputs, ScheduleError, memoryplan
from gatekit_wan22 import GGUFVariant, WanVariant

ROOT = Path(__file__).parents[3]
SHORT = {"sigmas.steps": 4, "video.frames": 9}
STORED = [f"variants.{key}.keep=never" for key in ("high-q2k", "high-q5ks")]


def planned(*overrides):
    short = [f"{key}={value}" for key, value in SHORT.items()]
    path = ROOT / "schedules" / "quickstart.yaml"
    schedule = gatekit.load_schedule(path, [*short, *STORED, *overrides])
    return gatekit.resolve(schedule, device="cpu")


def made(plan, **more):
    return gatekit.run(
        plan, Inputs(prompt="a red circle moves right", seed=1), decode=False, **more
    )


@pytest.fixture(scope="module")
def free():
    return made(planned()).latent


@pytest.fixture
def threads():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def placements(monkeypatch):
    """Placements that variants were given, in order."""
    given, place = [], WanVariant.place

    def watched(self, device, compute, placement, pool):
        given.append(placement)
        assert placement.need <= 1 << 40 and pool.bytes <= pool.most * pool.size
        return place(self, device, compute, placement, pool)

    monkeypatch.setattr(WanVariant, "place", watched)
    return given


def least():
    with pytest.raises(ScheduleError) as caught:
        planned("memory.vram=1MiB")
    return caught.value


def test_the_least_that_would_do_is_told_at_plan_time_and_does(free, placements, threads):
    error = least()
    assert "phases" not in str(error) and "memory.vram" in error.where
    said = error.remedy.split("do is ")[1].split(";")[0]
    found = made(planned(f"memory.vram={said}", "memory.ram=8MiB"))
    assert any(p.streamed for p in placements)
    assert torch.equal(found.latent, free)


@pytest.mark.parametrize("more", [1, 6, 12])
def test_limited_runs_have_the_same_bits(free, more, placements, threads):
    said = least().remedy.split("do is ")[1].split("MiB")[0]
    limit = (float(said) + more) * 1024 * 1024
    found = made(planned(f"memory.vram={int(limit)}B", "memory.ram=4MiB"))
    assert all(p.need + p.beside <= limit for p in placements)
    assert torch.equal(found.latent, free)


@pytest.mark.parametrize("limit", [24, 40, 64])
def test_as_on_a_gpu_what_comes_next_is_brought_in_ahead(
    free, limit, placements, monkeypatch, threads
):
    """Everything through carriers, resident models too; on a CPU otherwise a map serves them."""
    ahead, prepare = [], WanVariant.prepare

    def watched(self, device, compute, placement, pool, blocks):
        ahead.append(blocks)
        return prepare(self, device, compute, placement, pool, blocks)

    monkeypatch.setattr(memoryplan, "kind_of", lambda device: "cuda")
    monkeypatch.setattr(WanVariant, "_whole", lambda *_: False)
    monkeypatch.setattr(WanVariant, "prepare", watched)
    found = made(planned(f"memory.vram={limit}MiB", "memory.ram=8MiB"))
    assert torch.equal(found.latent, free)
    assert len(placements) == 3 and ahead[0] is None and any(ahead[1:])
    assert any(p.streamed for p in placements) == (limit < 40)


def test_too_little_host_memory_is_told():
    with pytest.raises(ScheduleError, match=r"at least 4MiB"):
        planned("memory.ram=3MiB")


def test_the_plan_says_what_is_where():
    said = least().remedy.split("do is ")[1].split(";")[0]
    plan = planned(f"memory.vram={said}")
    text = plan.explain()
    assert "streamed through 2 slots" in text and "of the host to read through" in text
    data = json.loads(json.dumps(plan.to_json()["memory"]))
    assert [p["name"] for p in data["phases"]] == ["commit", "structure", "polish"]
    for phase in data["phases"]:
        used = phase["resident_bytes"] + phase["slot_bytes"] + phase["working_bytes"]
        assert used + phase["next_bytes_ahead"] <= data["limit_bytes"]
    unlimited = planned().to_json()["memory"]["phases"]
    assert not any(phase["streamed_blocks"] for phase in unlimited)


def test_memory_that_runs_out_once_costs_a_warning(free, monkeypatch, caplog, threads):
    velocity, failed = WanVariant.velocity, []

    def short(self, x, sigma, conditioning):
        if not self.streamed:
            failed.append(self)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return velocity(self, x, sigma, conditioning)

    monkeypatch.setattr(WanVariant, "velocity", short)
    with caplog.at_level(logging.WARNING, "gatekit"):
        assert torch.equal(made(planned()).latent, free)
    assert len(failed) == 3  # once a phase
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 3 and all("--set memory.vram=" in s and "MiB" in s for s in said)


def test_memory_that_runs_out_while_a_model_loads(free, monkeypatch, threads):
    load = WanVariant.load

    def short(self, device, compute):
        load(self, device, compute)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(WanVariant, "load", short)
    assert torch.equal(made(planned()).latent, free)


def test_memory_that_runs_out_twice_ends_the_run_with_its_state(
    free, monkeypatch, tmp_path, threads
):
    velocity = WanVariant.velocity

    def short(self, x, sigma, conditioning):
        if isinstance(self, GGUFVariant):
            return velocity(self, x, sigma, conditioning)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patched:
        patched.setattr(WanVariant, "velocity", short)
        with pytest.raises(GatekitError, match=r"does not fit .* even streamed"):
            made(planned(), run_dir=tmp_path / "run")
    resumed = made(planned(), resume=tmp_path / "run")
    assert torch.equal(resumed.latent, free)


@pytest.mark.parametrize("limit", ["", "least"])
def test_an_interrupt_leaves_no_thread(limit, threads):
    said = least().remedy.split("do is ")[1].split(";")[0]
    plan = planned(f"memory.vram={said}") if limit else planned()

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(plan, observers=[stop])


def test_a_warm_run_after_a_limited_one(free, threads):
    said = least().remedy.split("do is ")[1].split(";")[0]
    warm = gatekit.Warm()
    for limit in (f"memory.vram={said}", "name=free", f"memory.vram={said}"):
        assert torch.equal(made(planned(limit), warm=warm).latent, free)
    warm.close()


def test_a_header_is_read_once_and_again_when_its_file_changes(tmp_path, monkeypatch):
    weights = Path(gatekit_tinywan.__file__).parent / "weights"
    vae = tmp_path / "vae.safetensors"
    shutil.copy(weights / "tinywan_vae_fp16.safetensors", vae)
    plan = planned(f"vae.file={vae}")
    family, asked = type(plan.family), []
    facts = family.component_facts.__func__
    monkeypatch.setattr(
        family,
        "component_facts",
        classmethod(lambda cls, file: (asked.append(file), facts(cls, file))[1]),
    )
    first = memoryplan.parts_of(plan)
    assert set(first) == {"text_encoder", "vae"}
    asked.clear()
    assert memoryplan.parts_of(plan) == first and not asked
    os.utime(vae, ns=(0, 0))
    assert memoryplan.parts_of(plan) == first and asked == [vae]
