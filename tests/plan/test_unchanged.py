"""Weight files that change under a run: an error that names the file, and a run that goes on."""

from __future__ import annotations

import os

import pytest
import torch

import gatekit
from gatekit import Inputs, WeightsError, leases, load_schedule, resolve
from gatekit.unchanged import Unchanged


@pytest.fixture(autouse=True)
def _nobody_waits(monkeypatch):
    """As on systems without leases (``test_leases``), where files change at any time."""
    monkeypatch.setattr(leases, "_possible", lambda: False)


def plan_of(project):
    return resolve(load_schedule(project / "fake.yaml"))


def shorten(file):
    with file.open("r+b") as stream:
        stream.truncate(3)


def rewrite(file):
    file.write_bytes(file.read_bytes().replace(b"0", b"1"))
    later = file.stat().st_mtime_ns + 1_000_000_000
    os.utime(file, ns=(later, later))


def replace(file):
    other = file.with_suffix(".new")
    other.write_bytes(file.read_bytes())
    other.replace(file)


def remove(file):
    file.unlink()


HOW = {
    shorten: "this file changed while a run uses it: 13 bytes became 3",
    rewrite: "this file changed while a run uses it: it was written to",
    replace: "this file changed while a run uses it: it was replaced",
    remove: "this file was removed while a run uses it",
}


def at_step(step, act, file):
    def observe(state, record, denoised):
        if record.step == step:
            act(file)

    return observe


@pytest.mark.parametrize("act", HOW, ids=lambda f: f.__name__)
def test_a_file_that_the_next_phase_needs(project, tmp_path, act):
    file = project / "fine.num"
    content, times = file.read_bytes(), file.stat()
    whole = gatekit.run(plan_of(project), Inputs(prompt="x")).latent
    with pytest.raises(WeightsError, match=HOW[act]) as caught:
        gatekit.run(
            plan_of(project),
            Inputs(prompt="x"),
            run_dir=tmp_path / "r",
            observers=[at_step(1, act, file)],
        )
    assert caught.value.where == str(file) and "go on with the run" in caught.value.remedy
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    rest = gatekit.run(plan_of(project), Inputs(prompt="x"), resume=tmp_path / "r")
    assert torch.equal(rest.latent, whole)


@pytest.mark.parametrize("act", [shorten, rewrite], ids=lambda f: f.__name__)
def test_a_file_that_a_loaded_model_may_have_mapped(project, tmp_path, act, fake):
    file = project / "coarse.num"
    with pytest.raises(WeightsError, match="this file changed"):
        gatekit.run(
            plan_of(project),
            Inputs(prompt="x"),
            run_dir=tmp_path / "r",
            observers=[at_step(0, act, file)],
        )
    assert (tmp_path / "r" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("act", [replace, remove], ids=lambda f: f.__name__)
def test_a_file_that_is_held_open_may_go(project, act):
    whole = gatekit.run(plan_of(project), Inputs(prompt="x")).latent
    file = project / "coarse.num"
    found = gatekit.run(plan_of(project), Inputs(prompt="x"), observers=[at_step(0, act, file)])
    assert torch.equal(found.latent, whole)


def test_the_vae_is_looked_at_before_it_is_read(project, tmp_path):
    with pytest.raises(WeightsError, match=r"vae\.bin: this file was removed"):
        gatekit.run(
            plan_of(project),
            Inputs(prompt="x"),
            run_dir=tmp_path / "r",
            observers=[at_step(7, remove, project / "vae.bin")],
        )
    assert (tmp_path / "r" / "latent.safetensors").exists()


def test_a_folder_is_its_files(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_bytes(b"12345")
    watched = Unchanged([folder])
    watched.check([folder])
    shorten(folder / "b")
    for check in (watched.check, watched.check_held):
        with pytest.raises(WeightsError, match=r"shards/b: .* 5 bytes became 3"):
            check([folder])
    watched.check([tmp_path / "unknown"])
