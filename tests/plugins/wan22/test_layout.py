"""Official <-> diffusers names, for all three parts."""

import pytest
import torch

from gatekit_wan22 import layout_transformer, layout_umt5, layout_vae


def vae(**kwargs):
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        return AutoencoderKLWan(base_dim=8, **kwargs)


def umt5():
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        return UMT5EncoderModel(
            UMT5Config(vocab_size=8, d_model=16, d_kv=8, d_ff=8, num_layers=3, num_heads=2)
        )


def wan(**kwargs):
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        return WanTransformer3DModel(num_attention_heads=1, ffn_dim=64, num_layers=12, **kwargs)


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        (layout_transformer, wan),
        (layout_transformer, lambda: wan(image_dim=32, added_kv_proj_dim=128)),
        (layout_vae, vae),
        (layout_vae, lambda: vae(num_res_blocks=1, dim_mult=[1, 2, 4])),
        (layout_umt5, umt5),
    ],
)
def test_every_name_there_and_back(layout, make):
    state = {name: object() for name in make().state_dict()}
    state.pop("encoder.embed_tokens.weight", None)
    there = layout.diffusers_to_official(state)
    assert len(there) == len(state)
    same_in_both = {"patch_embedding.weight", "patch_embedding.bias"}
    assert not (there.keys() & state.keys()) - same_in_both, "a name was not translated"
    assert layout.official_to_diffusers(there) == state


def test_official_names_of_a_transformer():
    """The names as Wan's own files have them (27 a block, 15 besides)."""
    names = set(layout_transformer.diffusers_to_official(wan().state_dict()))
    both, attentions = ("weight", "bias"), ("self_attn", "cross_attn")
    block = {f"{a}.{m}.{p}" for a in attentions for m in "qkvo" for p in both}
    block |= {f"{a}.{n}.weight" for a in attentions for n in ("norm_q", "norm_k")}
    block |= {f"{n}.{p}" for n in ("norm3", "ffn.0", "ffn.2") for p in both} | {"modulation"}
    layers = ["patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0"]
    layers += ["time_embedding.2", "time_projection.1", "head.head"]
    top = {f"{n}.{p}" for n in layers for p in both}
    assert len(block) == 27
    assert names == top | {"head.modulation"} | {
        f"blocks.{i}.{n}" for i in range(12) for n in block
    }


def test_official_names_of_a_vae():
    names = set(layout_vae.diffusers_to_official(vae().state_dict()))
    for name in (
        "conv1.weight",
        "conv2.bias",
        "encoder.downsamples.2.resample.1.weight",
        "encoder.downsamples.5.time_conv.weight",
        "encoder.middle.1.to_qkv.weight",
        "encoder.head.0.gamma",
        "decoder.upsamples.3.resample.1.weight",
        "decoder.upsamples.4.shortcut.weight",
        "decoder.upsamples.14.residual.6.bias",
        "decoder.head.2.weight",
    ):
        assert name in names
    assert len(names) == 194


def test_prefix_is_stripped_and_foreign_names_stay():
    state = {"model.diffusion_model.head.modulation": 1, "something.else": 2}
    assert layout_transformer.official_to_diffusers(state) == {
        "scale_shift_table": 1,
        "something.else": 2,
    }


def test_a_lone_copy_of_the_embedding_is_used():
    assert layout_umt5.drop_copies({"encoder.embed_tokens.weight": 1}) == {"shared.weight": 1}
    both = {"encoder.embed_tokens.weight": 1, "shared.weight": 2}
    assert layout_umt5.drop_copies(both) == {"shared.weight": 2}
