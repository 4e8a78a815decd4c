"""The VAE against diffusers used directly."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from gatekit import Components, ComponentSpec, InputError, WeightsError
from gatekit_wan22 import WanFamily, layout_vae, load_vae
from gatekit_wan22 import vae as module


@pytest.fixture(scope="module")
def vae(tmp_path_factory, tools):
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    model = AutoencoderKLWan(base_dim=8).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("vae")
    official = layout_vae.diffusers_to_official(model.state_dict())
    save_file(official, folder / "official.safetensors")
    save_file(model.state_dict(), folder / "diffusers.safetensors")
    save_file(
        official,
        folder / "tiny.safetensors",
        metadata={
            "latents_mean": json.dumps([0.5] * 16),
            "latents_std": json.dumps([2.0] * 16),
        },
    )
    video = torch.rand(2, 3, 9, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean = model.encode(video).latent_dist.mode()
    tools.small_umt5(folder / "umt5.safetensors")
    return SimpleNamespace(model=model, folder=folder, video=video, mean=mean, state=official)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["official", "diffusers"])
def test_encode_and_decode(whole, name, vae, monkeypatch):
    """Both ways of running equal diffusers; the latent is normalised by Wan's constants."""
    monkeypatch.setattr(module, "WHOLE_CLIP", 1 << 40 if whole else 0)
    found = load_vae(vae.folder / f"{name}.safetensors")
    mean = torch.tensor(vae.model.config.latents_mean).view(1, 16, 1, 1, 1)
    std = torch.tensor(vae.model.config.latents_std).view(1, 16, 1, 1, 1)
    latent = found.encode(vae.video)
    assert latent.shape == (2, 16, 3, 4, 6)
    assert (latent - (vae.mean - mean) / std).abs().max() < 2e-6
    wanted = vae.model.decode(vae.mean).sample
    assert (found.decode(latent) - wanted).abs().max() < 2e-5


def test_running_at_once_leaves_the_model_as_it_was(vae):
    found = load_vae(vae.folder / "official.safetensors")
    found.encode(vae.video)
    assert torch.equal(found.model.encode(vae.video).latent_dist.mode(), vae.mean)


def test_one_frame(vae):
    found = load_vae(vae.folder / "official.safetensors")
    latent = found.encode(vae.video[:, :, :1])
    assert latent.shape == (2, 16, 1, 4, 6)
    assert found.decode(latent).shape == (2, 3, 1, 32, 48)


def test_statistics_of_the_file_win(vae):
    found = load_vae(vae.folder / "tiny.safetensors")
    assert (found.encode(vae.video) - (vae.mean - 0.5) / 2).abs().max() < 2e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latents_mean", "[" * 100_000),
        ("latents_mean", json.dumps([float("nan")] * 16)),
        ("latents_std", json.dumps([0.0] * 16)),
        ("latents_std", json.dumps([1.0] * 15 + [-1.0])),
    ],
    ids=["deep", "no number", "zero", "negative"],
)
def test_statistics_that_are_none(key, value, vae, tmp_path):
    """Known before anything is sampled, not when the video is decoded."""
    save_file(vae.state, tmp_path / "a.safetensors", {key: value})
    family = WanFamily(
        WanFamily.Params(),
        Components(
            text_encoder=ComponentSpec(file=vae.folder / "umt5.safetensors"),
            vae=ComponentSpec(file=tmp_path / "a.safetensors"),
        ),
    )
    with pytest.raises(WeightsError, match=f"'{key}' is no JSON list"):
        family.check_components()


def test_sizes_are_read_off_the_tensors(tmp_path, caplog):
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
        decoder_base_dim=12,
    )
    path = tmp_path / "v.safetensors"
    ones = {"latents_mean": json.dumps([0.0] * 4), "latents_std": json.dumps([1.0] * 4)}
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path, metadata=ones)
    found = load_vae(path)
    assert (found.sizes.base_dim, found.sizes.decoder_base_dim, found.sizes.z_dim) == (8, 12, 4)
    assert found.sizes.dim_mult == (1, 2, 2) and found.sizes.down_in_time == (True, True)
    latent = found.encode(torch.zeros(1, 3, 5, 16, 16))
    assert latent.shape == (1, 4, 2, 4, 4)
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path)
    assert torch.equal(load_vae(path).encode(torch.zeros(1, 3, 5, 16, 16)), latent)
    assert "4 latent channels and no 'latents_mean'" in caplog.text
    ones["latents_std"] = "[1.0]"
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path, metadata=ones)
    with pytest.raises(WeightsError, match="4 latent channels, but 1 values of 'latents_std'"):
        load_vae(path)
    ones["latents_std"] = "wide"
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path, metadata=ones)
    with pytest.raises(WeightsError, match="no JSON list"):
        load_vae(path)


def test_bf16(vae):
    found = load_vae(vae.folder / "official.safetensors", precision="bf16")
    latent = found.encode(vae.video)
    exact = load_vae(vae.folder / "official.safetensors").encode(vae.video)
    assert latent.dtype == torch.float32
    assert 0 < (latent - exact).norm() < 5e-2 * exact.norm()


@pytest.mark.parametrize("shape", [(1, 3, 8, 32, 32), (1, 3, 9, 30, 32), (1, 1, 9, 32, 32)])
def test_impossible_videos(shape, vae):
    found = load_vae(vae.folder / "official.safetensors")
    with pytest.raises(InputError, match=r"4k \+ 1"):
        found.encode(torch.zeros(shape))
    with pytest.raises(InputError, match="latent"):
        found.decode(torch.zeros(1, 3, 2, 4, 4))


def test_missing_and_misshapen(vae, tmp_path):
    state = layout_vae.diffusers_to_official(vae.model.state_dict())
    state.pop("decoder.conv1.bias")
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensors are missing: decoder\.conv_in\.bias"):
        load_vae(tmp_path / "a.safetensors")
    state["decoder.conv1.bias"] = torch.zeros(3)
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"shape \[3\], expected \[32\]"):
        load_vae(tmp_path / "b.safetensors")
