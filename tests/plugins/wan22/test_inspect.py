"""``gatekit inspect`` on Wan files: what they are and lack, and the line to use them with."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gatekit.cli import call
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
