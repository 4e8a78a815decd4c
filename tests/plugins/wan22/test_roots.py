"""The root folder of a download, named for everything: planned, run, decoded, inspected."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import gatekit
from gatekit import Inputs, load_schedule, resolve
from gatekit.cli import call
from gatekit.decoding import decode
from gatekit.embed import read_embedded
from gatekit.explain import size
from gatekit.provenance import fingerprint
from gatekit_wan22 import layout_vae

STEM, VAE = "diffusion_pytorch_model", "Wan2.1_VAE.pth"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"


@pytest.fixture(scope="module")
def root(tmp_path_factory, tools):
    """Wan 2.1 1.3B's download at a small size: shards, .pth files, and a tokenizer beside."""
    from diffusers import AutoencoderKLWan
    from safetensors import safe_open

    folder = tmp_path_factory.mktemp("models") / "Wan2.1-T2V-1.3B"
    state = tools.official(tools.random_wan(layers=3, dim=384, ffn=896))
    tools.write_shards(folder, state)
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=8, z_dim=16)
    torch.save(layout_vae.diffusers_to_official(vae.state_dict()), folder / VAE)
    umt5 = tools.small_umt5(folder.parent / "umt5.safetensors")
    torch.save(load_file(umt5), folder / T5)
    beside = folder / "google" / "umt5-xxl"
    beside.mkdir(parents=True)
    with safe_open(umt5, "pt") as stored:
        (beside / "tokenizer.json").write_text(stored.metadata()["tokenizer_json"])
    (folder / "assets").mkdir()
    (folder / "assets" / "figure.png").write_bytes(bytes(9_000_000))
    save_file(state, folder.parent / "whole.safetensors")
    return SimpleNamespace(folder=folder, models=folder.parent)


SCHEDULE = """
version: 1
name: single
family: {{use: wan22, task: t2v-a14b}}
text_encoder: {{file: {text_encoder}}}
vae: {{file: {vae}}}
variants:
  only: {{use: safetensors, file: {model}}}
video: {{width: 48, height: 32, frames: 5, fps: 16}}
sigmas: {{use: shifted_linear, steps: 3, shift: 5.0}}
phases:
  - {{name: all, variant: only, sampler: unipc, guidance: {{use: cfg, scale: 5.0}}}}
"""


def planned(root, model, text_encoder, vae):
    path = root.models / "single.yaml"
    path.write_text(SCHEDULE.format(model=model, text_encoder=text_encoder, vae=vae))
    return resolve(load_schedule(path))


@pytest.fixture(scope="module")
def latent(root, tmp_path_factory):
    """What the root alone makes, as a latent."""
    name, out = root.folder.name, tmp_path_factory.mktemp("made") / "root.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATEKIT_CACHE", "off")
        gatekit.run(planned(root, name, name, name), Inputs(prompt="a cat", seed=1), out=out)
    return out


def test_a_single_model_runs_from_its_root(root, latent, tmp_path, monkeypatch):
    """Wan 2.1 T2V, whose one model has no expert: what its files give one by one.

    Not to the last bit: a product depends on how a file aligns its weights.
    """
    monkeypatch.setenv("GATEKIT_CACHE", "off")
    name = root.folder.name
    parts = [f"{name}/{part}" for part in (T5, VAE)]
    plan = planned(root, "whole.safetensors", *parts)
    gatekit.run(plan, Inputs(prompt="a cat", seed=1), out=tmp_path / "files.safetensors")
    found, wanted = (load_file(p)["latent"] for p in (latent, tmp_path / "files.safetensors"))
    assert (found - wanted).norm() < 1e-4 * wanted.norm()
    assert found.std() > 0.1


def test_a_root_decodes(root, latent, tmp_path):
    """As the VAE alone of a latent of which nothing is known, and beside its own schedule."""
    save_file(load_file(latent), tmp_path / "bare.safetensors")
    made = [
        decode(tmp_path / "bare.safetensors", tmp_path / f"{i}.mp4", vae=vae).read_bytes()
        for i, vae in enumerate((root.folder, root.folder / VAE))
    ]
    assert made[0] == made[1]
    again = decode(latent, tmp_path / "again.mp4", vae=root.folder)
    weights = read_embedded(again).weights
    assert VAE in weights and root.folder.name not in weights


def test_a_plan_has_one_line_for_each_model(root):
    name = root.folder.name
    lines = planned(root, name, name, name).explain().splitlines()
    (model,) = (line for line in lines if line.startswith("only: "))
    assert f"{root.folder / STEM}-*-of-00003.safetensors (3 files, fp32, " in model
    for section, file in (("text_encoder", T5), ("vae", VAE)):
        path = root.folder / file
        assert f"{section}: {path} ({size(path.stat().st_size)})" in lines


def test_what_else_lies_in_a_root_changes_nothing(root):
    """A picture added beside the models: the same fingerprint, so a run can be resumed."""
    name = root.folder.name
    before = fingerprint(planned(root, name, name, name), Inputs(prompt="a cat"))
    (root.folder / "assets" / "more.png").write_bytes(b"a picture")
    after = fingerprint(planned(root, name, name, name), Inputs(prompt="a cat"))
    assert after == before
    other = root.models / "other.pth"
    other.write_bytes((root.folder / VAE).read_bytes())
    assert fingerprint(planned(root, name, name, other), Inputs(prompt="a cat")) != before


def test_inspect_finds_the_parts_of_a_single_models_root(root, capsys):
    assert call(["inspect", str(root.folder)]) == 0
    name, shown = root.folder.name, capsys.readouterr().out
    assert f"use: safetensors, file: {name}}}" in shown
    assert f"text_encoder: {{file: {name}/{T5}}}" in shown
    assert f"vae: {{file: {name}/{VAE}}}" in shown
