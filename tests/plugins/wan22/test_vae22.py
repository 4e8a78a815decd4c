"""The VAE 2.2 against diffusers used directly, and its names in both layouts."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from gatekit import WeightsError
from gatekit_wan22 import layout_vae, load_vae, read_header
from gatekit_wan22 import vae as module
from gatekit_wan22.latent_statistics import MEAN_48, STD_48


def model22(**sizes):
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    given = {
        "base_dim": 8,
        "decoder_base_dim": 12,
        "z_dim": 48,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "latents_mean": list(MEAN_48),
        "latents_std": list(STD_48),
    }
    return AutoencoderKLWan(**(given | sizes)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    model = model22()
    folder = tmp_path_factory.mktemp("vae22")
    official = layout_vae.diffusers_to_official(model.state_dict())
    save_file(official, folder / "official.safetensors")
    save_file(model.state_dict(), folder / "diffusers.safetensors")
    video = torch.rand(2, 3, 9, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean = model.encode(video).latent_dist.mode()
    return SimpleNamespace(model=model, folder=folder, official=official, video=video, mean=mean)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["official", "diffusers"])
def test_encode_and_decode(whole, name, vae, monkeypatch):
    """All frames at once or in chunks, from either layout, normalised by Wan's constants."""
    monkeypatch.setattr(module, "WHOLE_CLIP", 1 << 40 if whole else 0)
    found = load_vae(vae.folder / f"{name}.safetensors")
    latent = found.encode(vae.video)
    assert latent.shape == (2, 48, 3, 2, 3)
    mean, std = (torch.tensor(v).view(1, 48, 1, 1, 1) for v in (MEAN_48, STD_48))
    assert (latent - (vae.mean - mean) / std).abs().max() < 5e-6
    wanted = vae.model.decode(vae.mean).sample
    assert wanted.shape == vae.video.shape and wanted.std() > 0.01
    assert (found.decode(latent) - wanted).abs().max() < 2e-5


def test_one_frame(vae):
    found = load_vae(vae.folder / "official.safetensors")
    latent = found.encode(vae.video[:, :, :1])
    assert torch.allclose(latent, found.encode(vae.video)[:, :, :1], atol=1e-5)
    assert found.decode(latent).shape == (2, 3, 1, 32, 48)


def test_sizes(vae):
    sizes = load_vae(vae.folder / "official.safetensors").sizes
    assert str(sizes) == "Wan VAE (2.2), z 48, stride 4x16x16, base 8"
    assert (sizes.decoder_base_dim, sizes.patch, sizes.residual) == (12, 2, True)


def test_other_sizes(tmp_path):
    """Any number of resolutions and blocks; time halved at other places."""
    model = model22(
        base_dim=8, decoder_base_dim=8, z_dim=4, dim_mult=[1, 2, 2], num_res_blocks=1,
        temperal_downsample=[True, False], latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
        scale_factor_spatial=8, scale_factor_temporal=2,
    )  # fmt: skip
    path = tmp_path / "v.safetensors"
    metadata = {"latents_mean": str([0.0] * 4), "latents_std": str([1.0] * 4)}
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path, metadata=metadata)
    found = load_vae(path)
    assert (found.sizes.temporal_stride, found.sizes.spatial_stride) == (2, 8)
    video = torch.rand(1, 3, 5, 16, 24) * 2 - 1
    latent = found.encode(video)
    assert latent.shape == (1, 4, 3, 2, 3)
    assert found.decode(latent).shape == video.shape


def test_names_of_the_official_file(vae):
    """As the official module names them: grouped by resolution, resamplers last in a group."""
    names = set(vae.official)
    assert "encoder.downsamples.1.downsamples.2.time_conv.weight" in names
    assert "encoder.downsamples.0.downsamples.2.resample.1.weight" in names
    assert "encoder.downsamples.1.downsamples.0.shortcut.weight" in names
    assert "decoder.upsamples.0.upsamples.3.time_conv.bias" in names
    assert "decoder.upsamples.3.upsamples.2.residual.6.weight" in names
    assert "decoder.head.2.bias" in names and "decoder.middle.1.to_qkv.weight" in names
    back = layout_vae.official_to_diffusers(vae.official)
    assert set(back) == set(vae.model.state_dict())
    assert all(torch.equal(back[n], p) for n, p in vae.model.state_dict().items())


def test_a_damaged_file(vae, tmp_path):
    state = dict(vae.official)
    state.pop("decoder.upsamples.1.upsamples.3.time_conv.bias")
    save_file(state, tmp_path / "a.safetensors")
    missing = r"missing: decoder\.up_blocks\.1\.upsampler\.time_conv\.bias"
    with pytest.raises(WeightsError, match=missing):
        load_vae(tmp_path / "a.safetensors")
    state = dict(vae.official)
    name = "encoder.downsamples.2.downsamples.0.residual.6.weight"
    state[name] = torch.zeros(7 * 8, *state[name].shape[1:])
    save_file(state, tmp_path / "b.safetensors")
    with pytest.raises(WeightsError, match=r"fit no Wan VAE|has shape"):
        load_vae(tmp_path / "b.safetensors")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_other_precisions(precision, vae):
    found = load_vae(vae.folder / "official.safetensors", precision=precision)
    exact = load_vae(vae.folder / "official.safetensors")
    latent = found.encode(vae.video)
    wanted = exact.encode(vae.video)
    assert latent.dtype == torch.float32
    assert 0 < (latent - wanted).norm() < 2e-2 * wanted.norm()
    video, wanted = found.decode(latent), exact.decode(latent)
    assert 0 < (video - wanted).norm() < 5e-2 * wanted.norm()


def test_header_tells_it(vae):
    from gatekit_wan22.sizes_parts import component_facts

    facts = component_facts(vae.folder / "diffusers.safetensors")
    assert set(facts) == {"vae"} and "2.2" in facts["vae"].details["model"]
    assert read_header(vae.folder / "diffusers.safetensors").parameters > 0
