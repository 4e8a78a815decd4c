"""Folders of weights: shards, indices, the roots of Wan's and diffusers' downloads."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from gatekit import WeightsError
from gatekit_wan22 import SafetensorsVariant, WanConditioning, layout_transformer, read_header
from gatekit_wan22.header import weight_files
from gatekit_wan22.mapped import MappedFile
from gatekit_wan22.sizes import read_sizes

STEM = "diffusion_pytorch_model"


def open_folder(path, **params):
    return SafetensorsVariant(SafetensorsVariant.Params(file=path, **params))


def same(header, state):
    mapped = MappedFile(header)
    assert header.tensors.keys() == state.keys()
    return all(torch.equal(mapped.read(header.tensors[n], state[n].dtype), state[n]) for n in state)


@pytest.mark.parametrize("index", [True, False])
def test_shards_are_the_model(index, wan, inputs, tools, tmp_path):
    folder = tools.write_shards(tmp_path / "model", wan.state, index=index)
    variant = open_folder(folder)
    whole = tools.open_file(wan.path)
    assert variant.facts().parameters == whole.facts().parameters
    assert len(variant.files()) == 3 and all(f.parent == folder for f in variant.files())
    assert variant.facts().file_bytes == sum(f.stat().st_size for f in variant.files())
    for each in (variant, whole):
        each.load("cpu", "fp32")
    found, wanted = (
        each.velocity(inputs.x, inputs.sigma, WanConditioning(text=inputs.text))
        for each in (variant, whole)
    )
    assert torch.equal(found, wanted)


def test_an_index_or_one_shard_stands_for_all(wan, tools, tmp_path):
    folder = tools.write_shards(tmp_path / "model", wan.state)
    for name in (f"{STEM}.safetensors.index.json", f"{STEM}-00002-of-00003.safetensors"):
        assert same(read_header(folder / name), wan.state)
        assert len(open_folder(folder / name).facts().types) == 1
    assert len(open_folder(folder / f"{STEM}-00002-of-00003.safetensors").files()) == 3


@pytest.fixture(scope="module")
def roots(wan, tools, tmp_path_factory):
    """Wan's official root and diffusers', two experts each, told apart by their seeds."""
    other = tools.official(tools.random_wan(seed=5))
    official = tmp_path_factory.mktemp("r") / "Wan2.2-T2V-A14B"
    tools.write_shards(official / "high_noise_model", wan.state)
    tools.write_shards(official / "low_noise_model", other)
    (official / "Wan2.1_VAE.pth").write_bytes(b"x")
    (official / "models_t5_umt5-xxl-enc-bf16.pth").write_bytes(b"x")
    diffusers = official.parent / "Wan2.2-T2V-A14B-Diffusers"
    for name, state in (("transformer", wan.state), ("transformer_2", other)):
        theirs = layout_transformer.official_to_diffusers(state)
        tools.write_shards(diffusers / name, theirs, number=2)
    (diffusers / "vae").mkdir()
    save_file({"a": torch.ones(1)}, diffusers / "vae" / f"{STEM}.safetensors")
    (diffusers / "vae" / "config.json").write_text("{}")
    (diffusers / "text_encoder").mkdir()
    save_file({"b": torch.ones(1)}, diffusers / "text_encoder" / "model.safetensors")
    return official, diffusers, {"high": wan.state, "low": other}


@pytest.mark.parametrize("expert", ["high", "low"])
@pytest.mark.parametrize("which", [0, 1], ids=["official", "diffusers"])
def test_expert_picks_the_folder_of_a_root(which, expert, roots):
    variant = open_folder(roots[which], expert=expert)
    folder = [("high_noise_model", "low_noise_model"), ("transformer", "transformer_2")]
    assert {f.parent.name for f in variant.files()} == {folder[which][expert == "low"]}
    mapped = MappedFile(variant.header())
    for name, tensor in roots[2][expert].items():
        assert torch.equal(mapped.read(variant.tensors()[name], torch.float32), tensor)
    assert variant.facts().warnings == ()


def test_a_root_without_the_expert(roots, tmp_path):
    with pytest.raises(WeightsError, match=r"two experts.*'expert: high' or 'expert: low'"):
        open_folder(roots[0]).facts()
    assert open_folder(roots[0]).files() == (roots[0],)
    single = tmp_path / "single"
    shutil.copytree(roots[1] / "transformer", single / "transformer")
    assert open_folder(single).facts().storage == "fp32"
    with pytest.raises(WeightsError, match="has no transformer_2"):
        open_folder(single, expert="low").facts()


def test_folder_of_the_other_expert_is_a_warning(roots):
    (warning,) = open_folder(roots[0] / "low_noise_model", expert="high").facts().warnings
    assert "low_noise_model is named a low-noise model, but 'expert' is high" in warning


def test_title_that_contradicts_the_expert(wan, tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(wan.state, path, {"modelspec.title": "Wan2.2 I2V A14B Low Noise"})
    (warning,) = open_folder(path, expert="high").facts().warnings
    assert "'modelspec.title' says a low-noise model" in warning
    assert open_folder(path, expert="low").facts().warnings == ()


def test_parts_of_a_root(roots):
    official, diffusers, _ = roots
    assert read_header(diffusers, role="vae").tensors.keys() == {"a"}
    assert read_header(diffusers, role="text_encoder").tensors.keys() == {"b"}
    assert read_header(diffusers / "vae", role="vae").tensors.keys() == {"a"}
    assert weight_files(diffusers, "vae") == (diffusers / "vae" / f"{STEM}.safetensors",)
    for role, name in (("vae", "Wan2.1_VAE.pth"), ("text_encoder", "models_t5_umt5")):
        with pytest.raises(WeightsError, match=name):  # found, and no weights
            read_header(official, role=role)


def break_index(folder, change):
    path = folder / f"{STEM}.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))


BROKEN = {
    "shard missing": (
        lambda f: (f / f"{STEM}-00002-of-00003.safetensors").unlink(),
        "1 of 3 shards are missing: diffusion_pytorch_model-00002-of-00003",
    ),
    "name not in the shard": (
        lambda f: break_index(f, lambda m: m.update({"x.y": f"{STEM}-00001-of-00003.safetensors"})),
        "does not hold 'x.y'",
    ),
    "name not in the index": (
        lambda f: break_index(f, lambda m: m.pop("head.modulation")),
        "does not name 'head.modulation'",
    ),
    "climbs out": (
        lambda f: break_index(f, lambda m: m.update({"a": "../secret.safetensors"})),
        "a file outside its folder: '../secret.safetensors'",
    ),
    "absolute": (
        lambda f: break_index(f, lambda m: m.update({"a": "/etc/secret.safetensors"})),
        "outside its folder",
    ),
    "no weight file": (
        lambda f: break_index(f, lambda m: m.update({"a": "passwd"})),
        "gives 'a' no weight file",
    ),
    "no text": (lambda f: break_index(f, lambda m: m.update({"a": 3})), "gives 'a' no weight file"),
    "index is a list": (
        lambda f: (f / f"{STEM}.safetensors.index.json").write_text("[1]"),
        "no JSON object with a 'weight_map'",
    ),
    "index of another type": (
        lambda f: (f / f"{STEM}.safetensors.index.json").write_text('{"weight_map": ["a"]}'),
        "no JSON object with a 'weight_map'",
    ),
    "index is empty": (
        lambda f: (f / f"{STEM}.safetensors.index.json").write_text(""),
        "no JSON object",
    ),
    "shard truncated": (
        lambda f: (f / f"{STEM}-00003-of-00003.safetensors").write_bytes(
            (f / f"{STEM}-00003-of-00003.safetensors").read_bytes()[:-5]
        ),
        "00003-of-00003.safetensors: .*truncated",
    ),
    "tensor in two shards": (
        lambda f: shutil.copy(
            f / f"{STEM}-00001-of-00003.safetensors", f / f"{STEM}-00002-of-00003.safetensors"
        ),
        "and in another shard",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_folders_that_are_wrong(case, wan, tools, tmp_path):
    folder = tools.write_shards(tmp_path / "model", wan.state)
    change, match = BROKEN[case]
    change(folder)
    with pytest.raises(WeightsError, match=match) as caught:
        read_sizes(read_header(folder))
    assert str(folder) in str(caught.value) and caught.value.remedy
    assert str(caught.value).isprintable()


def test_folders_that_are_no_model(wan, tools, tmp_path):
    with pytest.raises(WeightsError, match="a folder without weight files"):
        read_header(tmp_path)
    (tmp_path / "inner").mkdir()
    with pytest.raises(WeightsError, match="name one of its folders: inner"):
        read_header(tmp_path)
    for name in ("a.safetensors", "b.gguf"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"a folder of 2 models: a\.safetensors, b\.gguf"):
        read_header(tmp_path)
    folder = tools.write_shards(tmp_path / "mixed", wan.state, index=False)
    (folder / f"{STEM}-00002-of-00003.safetensors").write_bytes(b"GGUF\3\0\0\0" + bytes(16))
    with pytest.raises(WeightsError, match="of several formats: gguf, safetensors"):
        read_header(folder)
