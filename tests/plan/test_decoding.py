"""Decoding saved latents: by their own schedule, another, or a VAE alone."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

import gatekit
from gatekit import InputError, Inputs, WeightsError, load_schedule, resolve
from gatekit.cli import call
from gatekit.decoding import decode
from gatekit.embed import read_embedded

pytest.importorskip("av")


@pytest.fixture
def made(project, monkeypatch):
    """A video with its run folder, and the same run's latent alone."""
    monkeypatch.chdir(project)
    plan = resolve(load_schedule(project / "fake.yaml"))
    for name in ("out.mp4", "lone.safetensors"):
        gatekit.run(plan, Inputs(prompt="a ball", seed=4), out=project / name)
    return project


@pytest.mark.parametrize("latent", ["out.run/latent.safetensors", "lone.safetensors"])
def test_the_same_bytes_as_the_run_wrote(made, capsys, latent):
    assert call(["decode", latent, "-o", "again.mp4"]) == 0
    assert capsys.readouterr().out == "again.mp4\n"
    assert (made / "again.mp4").read_bytes() == (made / "out.mp4").read_bytes()


def test_models_that_are_gone_are_not_needed(made):
    for name in ("coarse.num", "fine.num", "text.bin"):
        (made / name).unlink()
    decode("lone.safetensors", "again.mp4")
    assert (made / "again.mp4").read_bytes() == (made / "out.mp4").read_bytes()
    (made / "vae.bin").unlink()
    with pytest.raises(WeightsError, match=r"no such weight file \(got 'vae.bin'\)"):
        decode("lone.safetensors", "again.mp4")
    (made / "elsewhere").mkdir()
    (made / "elsewhere" / "vae.bin").write_bytes(b"vae")
    decode("lone.safetensors", "third.mp4", models_dir="elsewhere")
    assert (made / "third.mp4").read_bytes() == (made / "out.mp4").read_bytes()


def test_another_vae_is_carried_by_name_and_hash_without_its_folder(made, tmp_path):
    shutil.copy(made / "vae.bin", tmp_path / "other_vae.bin")
    with (tmp_path / "other_vae.bin").open("ab") as file:
        file.write(b"!")
    decode("lone.safetensors", "again.mp4", vae=tmp_path / "other_vae.bin", fps=24)
    carried = read_embedded(made / "again.mp4")
    assert json.loads(carried.schedule)["vae"] == {"file": "other_vae.bin"}
    assert json.loads(carried.schedule)["video"]["fps"] == 24
    assert carried.weights["other_vae.bin"] != carried.weights["vae.bin"]
    assert str(tmp_path).encode() not in (made / "again.mp4").read_bytes()


def test_a_latent_of_another_suffix(made):
    (made / "sub.sft").write_bytes((made / "out.run" / "latent.safetensors").read_bytes())
    assert call(["decode", "sub.sft", "-o", "x.png", "--schedule", "fake.yaml"]) == 0


def test_a_vae_where_torch_cannot_run_it(made, fake, tmp_path):
    plan = resolve(load_schedule(made / "fake.yaml", ["vae.device=cuda:99"]))
    (tmp_path / "far.yaml").write_text(json.dumps(plan.resolved()))
    fake.LOG.clear()
    with pytest.raises(InputError, match=r"^vae\.device: torch cannot use this device"):
        decode(made / "lone.safetensors", tmp_path / "x.mp4", schedule=tmp_path / "far.yaml",
               models_dir=made)  # fmt: skip
    assert "decode" not in fake.LOG


def test_a_latent_of_unknown_making(made, capsys):
    save_file({"latent": torch.zeros(2, 2, 4, 4)}, made / "sub.safetensors")
    assert call(["decode", "sub.safetensors", "-o", "x.mp4"]) == 2
    assert "name the VAE with --vae, or the schedule with --schedule" in capsys.readouterr().err
    argv = ["decode", "sub.safetensors", "-o", "x.mp4", "--schedule", "fake.yaml"]
    assert call(argv) == 0
    with pytest.raises(gatekit.ScheduleError, match="carries no schedule"):
        read_embedded(made / "x.mp4")
    save_file({"latent": torch.zeros(2, 3, 4, 4)}, made / "sub.safetensors")
    assert call(argv) == 2
    assert "the schedule's latent is [2, 2, 4, 4] (got [2, 3, 4, 4])" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ({"samples": torch.zeros(2, 2, 4, 4)}, "no latent in this file"),
        ({"latent": torch.zeros(2, 4, 4)}, r"a latent is \[C, T, H, W\] \(got \[2, 4, 4\]\)"),
        ({"latent": torch.zeros(2, 0, 4, 4)}, r"a latent is"),
        ({"latent": torch.full((2, 2, 4, 4), float("nan"))}, "NaN"),
        (None, "l.safetensors: no readable safetensors file; give a run"),
    ],
)
def test_what_is_no_latent(tmp_path, tensors, expected):
    path = tmp_path / "l.safetensors"
    path.write_bytes(b"\xff" * 64) if tensors is None else save_file(tensors, path)
    with pytest.raises(InputError, match=expected):
        decode(path, tmp_path / "o.mp4")
    with pytest.raises(InputError, match="no such latent"):
        decode(tmp_path / "none.safetensors", tmp_path / "o.mp4")
    with pytest.raises(InputError, match="this would be a latent again"):
        decode(path, tmp_path / "o.safetensors")


@pytest.mark.parametrize("name", ["out.webp", "out.safetensors", "frames/", "out.png"])
def test_a_run_made_again_from_any_kind(made, name):
    assert call(["run", "fake.yaml", "-p", "a ball", "--seed", "4", "-o", name]) == 0
    source = "out-0001.png" if name == "out.png" else name
    assert call(["run", source, "-o", "again.mp4"]) == 0
    assert (made / "again.mp4").read_bytes() == (made / "out.mp4").read_bytes()


def test_a_folder_of_frames_from_within(made, monkeypatch):
    assert call(["run", "fake.yaml", "-p", "a ball", "--seed", "4", "-o", "frames/"]) == 0
    monkeypatch.chdir(made / "frames")
    assert call(["run", ".", "-o", "../again.mp4"]) == 0
    assert (made / "again.mp4").read_bytes() == (made / "out.mp4").read_bytes()


def test_a_resumed_run_writes_where_it_was_to(made, fake, monkeypatch):
    """A folder of frames keeps its slash through the run folder."""
    velocity, calls = fake.Number.velocity, []

    def interrupted(self, x, sigma, conditioning):
        calls.append(sigma)
        if len(calls) == 7:
            raise gatekit.Cancelled
        return velocity(self, x, sigma, conditioning)

    monkeypatch.setattr(fake.Number, "velocity", interrupted)
    argv = ["run", "fake.yaml", "-p", "a ball", "--seed", "4", "-o", "shots/"]
    assert call(argv) == 130
    assert call(["run", "--resume", "shots.run"]) == 0
    assert len(list((made / "shots").glob("*.png"))) == 5
