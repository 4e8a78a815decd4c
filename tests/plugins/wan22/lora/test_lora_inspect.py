"""``gatekit inspect`` of a LoRA: what it is, for which model, and the lines to use it with."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from gatekit.cli import call as command
from gatekit_wan22.lora.facts import lora_facts


def lightning(path):
    """Names, shapes, types and alpha of a Lightning file, in two of its forty blocks."""
    layers = {f"{a}.{m}": (5120, 5120) for a in ("self_attn", "cross_attn") for m in "qkvo"}
    layers |= {"ffn.0": (5120, 13824), "ffn.2": (13824, 5120)}
    tensors = {}
    for block in (0, 39):
        for layer, (into, out) in layers.items():
            stem = f"diffusion_model.blocks.{block}.{layer}"
            tensors[f"{stem}.lora_down.weight"] = torch.zeros(64, into, dtype=torch.bfloat16)
            tensors[f"{stem}.lora_up.weight"] = torch.zeros(out, 64, dtype=torch.bfloat16)
            tensors[f"{stem}.alpha"] = torch.tensor(8)
    save_file(tensors, path)


def test_what_it_says(tmp_path, capsys):
    path = tmp_path / "wan2.2_t2v_lightx2v_4steps_lora_v1.1_high_noise.safetensors"
    lightning(path)
    assert command(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    for line in (
        "LoRA: rank 64 on 20 layers",
        "for: Wan 2.1 14B and Wan 2.2 A14B, 40 layers x 5120, ffn 13824",
        "alpha: 8 (I64) at rank 64: x 0.125 (20 layers)",
        "layers: cross_attn.k, cross_attn.o, cross_attn.q, cross_attn.v, ffn.0, ffn.2, "
        "self_attn.k, self_attn.o, self_attn.q, self_attn.v of blocks 0, 39",
        "opens as: lora of family wan22",
        f"  loras: [{{file: {path.name}, strength: 1.0, name: style}}]  # in a variant",
        "  adjust: {loras: {style: 0.5}}  # in a phase, where the strength is another there",
    ):
        assert line in text.splitlines(), text
    assert command(["inspect", str(path), "--json"]) == 0


@pytest.mark.parametrize(
    ("width", "inner", "layer", "small"),
    [
        pytest.param(256, 1024, "ffn.0", True, id="its widths"),
        pytest.param(256, 256, "self_attn.q", True, id="attention alone"),
        pytest.param(256, 512, "ffn.0", False, id="another inner width"),
        pytest.param(5120, 5120, "self_attn.q", False, id="A14B"),
    ],
)
def test_the_small_model_is_named_for_loras_of_its_widths(
    tmp_path, capsys, width, inner, layer, small
):
    stem = f"diffusion_model.blocks.0.{layer}"
    down, up = torch.zeros(4, width), torch.zeros(inner, 4)
    path = tmp_path / "l.safetensors"
    save_file({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, path)
    assert command(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"opens as: lora of family wan22{' (also tinywan)' if small else ''}" in lines


def test_other_files_are_not_loras(wan, kit, tmp_path):
    assert lora_facts(wan.path) is None and lora_facts(tmp_path) is None
    save_file(
        {"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(2, 3)}, tmp_path / "sd.safetensors"
    )
    assert lora_facts(tmp_path / "sd.safetensors") is None


def test_differences_alpha_by_note_and_strays(wan, kit, tmp_path):
    pairs = kit.pairs(wan.state, ["blocks.0.ffn.0", "head.head"])
    extra = {
        "diffusion_model.blocks.1.norm3.diff_b": torch.zeros(256),
        "diffusion_model.img_emb.x.diff": torch.zeros(3),
    }
    meta = {"lora_adapter_metadata": '{"lora_alpha": 8, "use_rslora": true}'}
    path = kit.write(tmp_path / "a b.safetensors", pairs, extra=extra, meta=meta)
    facts = lora_facts(path)
    assert facts.details == {
        "LoRA": "rank 4 on 2 layers, 1 bias differences",
        "for": "2 layers x 256, ffn 512",
        "alpha": "8 (noted) at rank 4: x 4 (2 layers)",
        "layers": "ffn.0 of blocks 0; norm3 of blocks 1; head.head",
    }
    assert facts.warnings == (
        "1 keys match nothing in a Wan transformer: diffusion_model.img_emb.x.diff",
    )
    assert 'file: "a b.safetensors"' in facts.yaml
