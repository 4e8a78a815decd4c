"""What a LoRA file can be wrong in: told from headers, in one message, when planning."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from gatekit import WeightsError
from gatekit_wan22.lora.file import read_lora
from gatekit_wan22.lora.fit import check_fit, meant
from gatekit_wan22.sizes import TransformerSizes

A14B = TransformerSizes(5120, 13824, 40, 16, 16, 4096)
I2V = TransformerSizes(5120, 13824, 40, 36, 16, 4096)
TI2V = TransformerSizes(3072, 14336, 30, 48, 48, 4096)


def of_size(path, dim, ffn, layers, channels=None, rank=2):
    """A LoRA for a model of some size, in float16 zeros."""
    tensors = {}
    for i in range(layers):
        for module, (into, out) in {
            "self_attn.q": (dim, dim), "cross_attn.v": (dim, dim),
            "ffn.0": (dim, ffn), "ffn.2": (ffn, dim),
        }.items():  # fmt: skip
            stem = f"diffusion_model.blocks.{i}.{module}"
            tensors[f"{stem}.lora_A.weight"] = torch.zeros(rank, into, dtype=torch.float16)
            tensors[f"{stem}.lora_B.weight"] = torch.zeros(out, rank, dtype=torch.float16)
    if channels:
        weight = torch.zeros(dim, channels, 1, 2, 2, dtype=torch.float16)
        tensors["diffusion_model.patch_embedding.diff"] = weight
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("made_for", "model", "says"),
    [
        ((3072, 14336, 30), A14B, r"Wan 2.2 TI2V-5B, 30 layers x 3072, ffn 14336; this one is "
         r"wan 40 layers x 5120"),
        ((1536, 8960, 30), A14B, r"Wan 2.1 1.3B, 30 layers x 1536"),
        ((5120, 13824, 40), TI2V, r"Wan 2.1 14B and Wan 2.2 A14B, 40 layers x 5120"),
        ((5120, 13824, 40, 36), A14B, r"36 channels in; this one is wan .* 16 channels in"),
        ((5120, 13824, 41), A14B, r"41 layers x 5120"),
    ],
)  # fmt: skip
def test_for_another_model(made_for, model, says, tmp_path):
    lora = read_lora(of_size(tmp_path / "l.safetensors", *made_for))
    with pytest.raises(WeightsError, match=f"a LoRA for another model: .*{says}"):
        check_fit(lora, model)


def test_for_this_model(tmp_path):
    lora = read_lora(of_size(tmp_path / "l.safetensors", 5120, 13824, 40, 36))
    assert len(check_fit(lora, I2V)) == 161
    assert str(meant(lora)).startswith("Wan 2.1 14B and Wan 2.2 A14B, 40 layers x 5120")
    assert str(lora) == "rank 2 on 160 layers, 1 weight differences"
    half = read_lora(of_size(tmp_path / "h.safetensors", 5120, 13824, 7))
    assert len(check_fit(half, A14B)) == 28  # a LoRA may leave blocks out


def broken(wan, kit, change):
    tensors = {}
    for module, (down, up) in kit.pairs(wan.state, kit.matrices[:4]).items():
        tensors[f"diffusion_model.{module}.lora_down.weight"] = down
        tensors[f"diffusion_model.{module}.lora_up.weight"] = up
        tensors[f"diffusion_model.{module}.alpha"] = torch.tensor(4.0)
    change(tensors)
    return tensors


def lost(tensors):
    tensors["diffusion_model.blocks.0.self_attn.k_img.lora_down.weight"] = torch.zeros(2, 3)
    tensors["lora_te_text_model_q.lora_down.weight"] = torch.zeros(2, 3)


STEM = "diffusion_model.blocks.0.self_attn.q"
WRONG = {
    "unmatched": (lost, r"2 keys match nothing in the model: .*k_img.*, lora_te_text_model_q"),
    "half": (lambda t: t.pop(f"{STEM}.lora_up.weight"), r"1 layers have only a part .*self_attn.q"),
    "alpha alone": (
        lambda t: [t.pop(f"{STEM}.lora_{end}.weight") for end in ("up", "down")],
        r"1 layers have only a part of down, up and alpha",
    ),
    "rank 0": (
        lambda t: t.update({f"{STEM}.lora_down.weight": torch.zeros(0, 256),
                            f"{STEM}.lora_up.weight": torch.zeros(256, 0)}),
        r"no rank in common.*a rank of 1 or more",
    ),
    "two ranks": (
        lambda t: t.update({f"{STEM}.lora_down.weight": torch.zeros(5, 256)}),
        r"down \[5, 256\] and up \[256, 4\] have no rank in common",
    ),
    "one dimension": (
        lambda t: t.update({f"{STEM}.lora_down.weight": torch.zeros(4)}), r"no rank in common",
    ),
    "long alpha": (
        lambda t: t.update({f"{STEM}.alpha": torch.zeros(3)}), r"alpha .* is \[3\], not one number",
    ),
    "no number": (
        lambda t: t.update({f"{STEM}.alpha": torch.tensor(torch.nan)}),
        rf"'{STEM}.alpha' is NaN or infinite",
    ),
    "narrow": (
        lambda t: t.update({f"{STEM}.lora_down.weight": torch.zeros(4, 255)}),
        r"changes \[256, 255\] weights, but 'blocks.0.self_attn.q.weight' is \[256, 256\]",
    ),
    "narrow difference": (
        lambda t: t.update({STEM[:-1] + "k.diff": torch.ones(2, 256)}),
        r"k.diff' changes \[2, 256\]",
    ),
    "integers": (
        lambda t: t.update({f"{STEM}.lora_down.weight": torch.zeros(4, 256, dtype=torch.int32)}),
        r"lora_down.weight' is I32, which cannot be decoded",
    ),
    "twice": (
        lambda t: t.update({"lora_unet_blocks_0_self_attn_q.lora_down.weight": torch.ones(4, 256)}),
        r"two entries for the down of 'blocks.0.self_attn.q'",
    ),
    "dora": (lambda t: t.update({f"{STEM}.dora_scale": torch.ones(256, 1)}), r"a DoRA adapter"),
    "peft dora": (
        lambda t: t.update({f"{STEM}.lora_magnitude_vector": torch.ones(256)}), r"a DoRA adapter",
    ),
    "lokr": (lambda t: t.update({f"{STEM}.lokr_w1": torch.ones(2, 2)}), r"a LoKr adapter .*merge"),
    "loha": (lambda t: t.update({f"{STEM}.hada_w1_a": torch.ones(2, 2)}), r"a LoHa adapter"),
    "oft": (lambda t: t.update({f"{STEM}.oft_diag": torch.ones(2, 2)}), r"an? OFT adapter"),
    "whole model": (
        lambda t: [t.clear(), t.update({f"blocks.{i}.weight": torch.ones(1) for i in range(500)})],
        r"no LoRA but a whole model: 500 tensors",
    ),
    "something": (
        lambda t: [t.clear(), t.update({"decoder.weight": torch.ones(1)})],
        r"no LoRA but something else: 1 tensors, such as decoder.weight",
    ),
    "another architecture": (
        lambda t: [t.clear(), t.update({"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight":
                                        torch.ones(2, 8)})],
        r"1 keys match nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_in_one_way(what, wan, kit, tmp_path):
    change, says = WRONG[what]
    save_file(broken(wan, kit, change), tmp_path / "l.safetensors")
    with pytest.raises(WeightsError, match=says) as caught:
        kit.open(wan.path, loras=[{"file": tmp_path / "l.safetensors"}]).facts()
    assert "l.safetensors" in str(caught.value) and "\n" not in str(caught.value)


FLOATS = [
    getattr(torch, name)
    for name in ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_an_alpha_that_is_no_number_is_told_by_the_header(dtype, wan, kit, tmp_path):
    def named(value):
        alpha = torch.tensor(value).to(dtype)
        tensors = broken(wan, kit, lambda t: t.update({f"{STEM}.alpha": alpha}))
        save_file(tensors, tmp_path / "l.safetensors")
        return tmp_path / "l.safetensors"

    bad = [torch.nan] if dtype == torch.float8_e4m3fn else [torch.nan, torch.inf, -torch.inf]
    for value in bad:  # float8_e4m3fn has no infinity
        with pytest.raises(WeightsError, match=r"self_attn\.q\.alpha' is NaN or infinite"):
            read_lora(named(value))
    for value in (448.0, -448.0, 0.0, 0.001):
        read_lora(named(value))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"lora_alpha": NaN}', "[1]"])
def test_a_configuration_that_cannot_be_read(text, wan, kit, tmp_path):
    tensors = broken(wan, kit, lambda t: [t.pop(k) for k in list(t) if k.endswith("alpha")])
    save_file(tensors, tmp_path / "l.safetensors", {"lora_adapter_metadata": text})
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(text)
    for name in ("l.safetensors", "adapter_model.safetensors"):
        with pytest.raises(WeightsError, match="its configuration, which holds alpha, cannot be"):
            kit.open(wan.path, loras=[{"file": tmp_path / name}]).facts()


def test_unmatched_keys_may_be_left_out_with_a_warning(wan, kit, inputs, tmp_path):
    save_file(broken(wan, kit, lost), tmp_path / "l.safetensors")
    variant = kit.open(wan.path, loras=[{"file": tmp_path / "l.safetensors", "unmatched": "skip"}])
    assert variant.facts().warnings == ("l.safetensors: 2 keys match nothing and are left out",)
    save_file(broken(wan, kit, lambda t: None), tmp_path / "whole.safetensors")
    whole = kit.open(wan.path, loras=[{"file": tmp_path / "whole.safetensors"}])
    assert torch.equal(kit.velocity(variant, inputs), kit.velocity(whole, inputs))


def test_one_file_for_both_experts(wan, kit, inputs, tmp_path):
    """diffusers writes transformer (high noise) and transformer_2 (low noise) together."""
    pairs = [kit.pairs(wan.state, kit.matrices[:2], seed=seed) for seed in (1, 2)]
    tensors = {}
    for prefix, part in zip(("transformer", "transformer_2"), pairs, strict=True):
        for module, (down, up) in part.items():
            stem = f"{prefix}.{module}".replace("self_attn.", "attn1.to_")
            tensors |= {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    save_file(tensors, tmp_path / "both.safetensors")
    loras = [{"file": tmp_path / "both.safetensors"}]
    with pytest.raises(WeightsError, match=r"LoRAs for two models.*expert"):
        kit.open(wan.path, loras=loras).facts()
    for expert, part in zip(("high", "low"), pairs, strict=True):
        alone = kit.write(tmp_path / f"{expert}.safetensors", part)
        wanted = kit.velocity(kit.open(wan.path, loras=[{"file": alone}]), inputs)
        found = kit.velocity(kit.open(wan.path, expert=expert, loras=loras), inputs)
        assert torch.equal(found, wanted)


def test_a_name_that_tells_of_the_other_expert(wan, kit, tmp_path):
    path = kit.write(tmp_path / "x_low_noise.safetensors", kit.pairs(wan.state, kit.matrices[:1]))
    variant = kit.open(wan.path, expert="high", loras=[{"file": path}])
    assert variant.facts().warnings == (
        "x_low_noise.safetensors is named a low-noise LoRA, but 'expert' is high",
    )


def test_planning_needs_no_torch():
    code = "import sys; import gatekit_wan22.variant_gguf; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
