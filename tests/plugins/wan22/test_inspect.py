"""``gatekit inspect`` on Wan files: what they are and lack, and the line to use them with."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gatekit.cli import call
from gatekit.latent import latent_bytes
from gatekit.load import load_schedule
from gatekit_wan22.sizes import PUBLISHED, expected_shapes
from gatekit_wan22.survey import guess_sizes


def inspected(path, capsys, code=0):
    assert call(["inspect", str(path)]) == code
    return capsys.readouterr()


def test_a_gguf_of_one_expert(wan, tools, tmp_path, capsys):
    path = tools.write_gguf(
        tmp_path / "wan_high_noise_Q4_0.gguf",
        wan.state,
        lambda n, t: "Q4_0" if tools.is_matrix(n) else "F16",
        strings=[("general.name", "Wan High")],
    )
    text = inspected(path, capsys).out
    assert "storage: Q4_0, " in text and "Q4_0  20" in text and "F16   49" in text
    assert "known as: no published size" in text
    assert "general.architecture 'wan', general.name 'Wan High'" in text
    assert (
        "variants: {wan_high_noise_Q4_0: {use: gguf, expert: high, file: wan_high_noise_Q4_0.gguf}}"
    ) in text


@pytest.mark.parametrize(
    ("name", "expert"),
    [("wan_low.safetensors", "low"), ("slow_wan.safetensors", None), ("high_low.pth", None)],
)
def test_the_line_says_the_expert_only_where_the_name_does(name, expert, wan, tmp_path, capsys):
    path = tmp_path / name
    (torch.save if name.endswith("pth") else save_file)(wan.state, path)
    text = inspected(path, capsys).out
    assert ("expert: " in text) == (expert is not None)
    assert f"use: {'pth' if name.endswith('pth') else 'safetensors'}, " in text


def test_an_incomplete_file_is_named_and_its_gaps_listed(wan, tmp_path, capsys):
    state = {n: t for n, t in wan.state.items() if not n.startswith("blocks.0.ffn.")}
    state["blocks.1.extra.weight"] = torch.zeros(1)
    state["blocks.1.ffn.0.bias"] = torch.zeros(3)
    path = tmp_path / "part.safetensors"
    save_file(state, path)
    done = inspected(path, capsys, code=2)
    assert "seems to be: a Wan model, wan 2 layers x 256 (2 heads, ffn 512)" in done.out
    assert "missing: 4\n  blocks.0.ffn.0.bias\n" in done.out
    assert "unexpected: 1\n  blocks.1.extra.weight" in done.out
    assert "of the wrong shape: 1\n  blocks.1.ffn.0.bias [3], expected [512]" in done.out
    assert str(path) in done.err and "no installed plugin can use this file" in done.err


def test_sizes_of_a_published_model_are_guessed_from_half_of_it():
    from gatekit_wan22.header import TensorInfo

    for sizes in PUBLISHED:
        half = {
            n: TensorInfo(n, s, "F16", 0, 0)
            for n, s in expected_shapes(sizes).items()
            if n.startswith(("blocks.0.", "blocks.7.", "patch_embedding.weight", "head.head."))
        }
        assert guess_sizes(half) == sizes


def test_the_root_of_a_download(wan, tools, tmp_path, capsys):
    root = tmp_path / "Wan2.2-T2V-A14B"
    for name in ("high_noise_model", "low_noise_model"):
        tools.write_shards(root / name, wan.state)
    text = inspected(root, capsys).out
    for expert in ("high", "low"):
        line = f"expert: {expert}, file: Wan2.2-T2V-A14B/{expert}_noise_model}}"
        assert f"use: safetensors, {line}" in text
    assert call(["inspect", str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    weights = list(root.rglob("*.safetensors"))
    assert found["size"] == sum(f.stat().st_size for f in weights)


def test_the_family_of_the_plugin_comes_first_and_lines_once(wan, capsys):
    text = inspected(wan.path, capsys).out
    assert "\nopens as: safetensors of family wan22\n" in text  # it is of none of tinywan's sizes
    assert text.count("variants: {") == 1


def test_a_shard_stands_for_its_folder_where_that_is_one_model(wan, tools, tmp_path, capsys):
    folder = tmp_path / "low_noise_model"
    tools.write_shards(folder, wan.state)
    shard = min(folder.glob("*-of-*"))
    line = "variants: {low_noise_model: {use: safetensors, expert: low, file: low_noise_model}}"
    assert line in inspected(shard, capsys).out
    for index in folder.glob("*.json"):
        index.unlink()
    (folder / "other.safetensors").write_bytes(wan.path.read_bytes())
    assert f"file: {shard.name}}}" in inspected(shard, capsys).out


def test_one_reason_is_said_once(tmp_path, capsys):
    for name, tensor, reason in (
        ("lora", "blocks.0.attn1.lora_A.weight", "a LoRA"),
        ("sd", "some.weight", "not a Wan diffusion model"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file({tensor: torch.zeros(4, 4)}, path)
        error = inspected(path, capsys, code=2).err
        assert error.count(reason) == 1 and "write 'use:" not in error
        assert "wan22:" not in error and "; " in error.partition(reason)[2]


def test_a_latent_is_sent_to_decode(tmp_path, capsys):
    path = tmp_path / "latent.safetensors"
    path.write_bytes(latent_bytes(torch.zeros(16, 1, 2, 2)))
    error = inspected(path, capsys, code=2).err
    assert f"a latent that gatekit saved, no weights; gatekit decode {path} -o" in error


@pytest.mark.parametrize(("name", "asks"), [("wan.gguf", True), ("wan_low.gguf", False)])
def test_an_expert_of_a14b_whose_name_does_not_say_which(name, asks, wan, tools, tmp_path, capsys):
    sizes = next(s for s, known in PUBLISHED.items() if "A14B" in known)
    path = tools.write_gguf(tmp_path / name, wan.state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gatekit_wan22.described.read_sizes", lambda header: sizes)
        text = inspected(path, capsys).out
    assert ("A14B needs 'expert: high' or 'expert: low'" in text) == asks


def test_it_says_what_goes_in_and_not_what_it_was_trained_for(capsys):
    from gatekit_tinywan.family import WEIGHTS

    text = inspected(WEIGHTS / "tinywan_low_fp16.safetensors", capsys).out
    assert "takes: text, and 20 channels of image and mask\n" in text and "task" not in text
    assert "opens as: safetensors of family wan22 (also tinywan)\n" in text


def test_the_line_is_a_schedule(wan, tmp_path, capsys):
    path = tmp_path / "wan.low noise.safetensors"
    save_file(wan.state, path)
    text = inspected(path, capsys).out
    line = next(line for line in text.splitlines() if line.startswith("  variants:"))
    schedule = tmp_path / "s.yaml"
    schedule.write_text(
        f"version: 1\nname: s\nfamily: {{use: wan22}}\n{line.strip()}\n"
        "sigmas: {use: shifted_linear, steps: 2, shift: 5.0}\n"
        "phases: [{name: all, variant: wan-low-noise, sampler: {use: euler}}]\n"
    )
    variants = load_schedule(schedule).variants
    assert variants["wan-low-noise"].params["file"] == path.name
