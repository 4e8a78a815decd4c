"""TI2V-5B: a first frame that is known, at every evaluation and at the end."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import gatekit
from gatekit import Components, ComponentSpec, InputError, Inputs, ScheduleError, VideoSpec
from gatekit_wan22 import WanConditioning, WanFamily, load_vae

VIDEO = {"width": 64, "height": 32, "frames": 9, "fps": 24}
GRID = (1.0, 0.8, 0.5, 0.2)


@pytest.fixture(scope="module")
def small(tmp_path_factory, tools):
    """A 5B model, VAE 2.2 and UMT5 at small widths, their files, and an encoded image."""
    from diffusers import AutoencoderKLWan

    from gatekit_wan22 import layout_vae

    folder = tmp_path_factory.mktemp("ti2v")
    model = tools.random_wan(in_channels=48, out_channels=48, layers=1, dim=128, ffn=64)
    save_file(tools.official(model), folder / "ti2v.safetensors")
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=8,
        z_dim=48,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
    )
    save_file(layout_vae.diffusers_to_official(vae.state_dict()), folder / "vae.safetensors")
    tools.small_umt5(folder / "umt5.safetensors")
    image = torch.rand(3, 32, 64, generator=torch.Generator().manual_seed(1))
    first = load_vae(folder / "vae.safetensors").encode(image[None, :, None] * 2 - 1)
    return SimpleNamespace(model=model, folder=folder, image=image, first=first)


def family(small, task="ti2v-5b", **files):
    files = {"text_encoder": "umt5.safetensors", "vae": "vae.safetensors"} | files
    specs = {key: ComponentSpec(file=small.folder / name) for key, name in files.items()}
    return WanFamily(WanFamily.Params(task=task), Components(**specs))


def test_sizes(small):
    f = family(small)
    video = VideoSpec(**f.default_video())
    f.check_video(video)
    assert (video.width, video.height, video.frames, video.fps) == (1280, 704, 121, 24)
    assert f.latent_shape(video) == (48, 31, 44, 80)
    with pytest.raises(ScheduleError, match=r"height must be a multiple of 32.*720.*use 704"):
        f.check_video(VideoSpec(1280, 720, 121, 24))
    assert family(small, "t2v-a14b").latent_shape(VideoSpec(832, 480, 81, 16)) == (16, 21, 60, 104)


def test_files_are_checked(small, wan, tools):
    f = family(small)
    f.check_components()
    f.check_variant(tools.open_file(small.folder / "ti2v.safetensors"), "fp32")
    with pytest.raises(gatekit.WeightsError, match=r"16 latent channels.*48 are TI2V-5B's"):
        f.check_variant(tools.open_file(wan.path), "fp32")
    with pytest.raises(ScheduleError, match=r"48 channels and strides 16 and 4.*VAE of Wan 2\.1"):
        family(small, "i2v-a14b").check_components()
    facts = tools.open_file(small.folder / "ti2v.safetensors").facts()
    assert facts.details["takes"] == "text, and a first frame in its latent"


def test_an_image_becomes_latent_frame_0(small, monkeypatch):
    monkeypatch.setattr(WanFamily, "open_text_encoder", lambda *_: SimpleNamespace(embed=embed))
    f, video = family(small), VideoSpec(**VIDEO)
    with_image = f.encode(Inputs(prompt="a", image=small.image), video, "cpu")
    assert set(with_image) == {"positive", "negative"}
    for conditioning in with_image.values():
        assert conditioning.image is None
        assert torch.equal(conditioning.first_frame, small.first)
    without = f.encode(Inputs(prompt="a"), video, "cpu")["positive"]
    assert without.image is None and without.first_frame is None


def embed(prompts):
    return torch.stack([torch.full((12, 32), float(len(p))) for p in prompts]) / 100


@pytest.fixture
def variant(small):
    opened = gatekit.open_variant(
        {"use": "safetensors", "file": str(small.folder / "ti2v.safetensors")},
        family="wan22",
        device="cpu",
        compute="fp32",
    )
    yield opened
    opened.unload()


def test_velocity_is_the_models_at_the_clean_frame(small, variant):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 48, 3, 2, 4, generator=generator)
    text = torch.randn(1, 12, 32, generator=generator)
    conditioning = WanConditioning(text=text, first_frame=small.first)
    v = variant.velocity(x, 0.7, conditioning)
    seen = torch.cat([small.first.expand(2, -1, -1, -1, -1), x[:, :, 1:]], dim=2)
    times = torch.tensor([0.0] * 2 + [700.0] * 4).expand(2, -1)
    wanted = small.model(seen, times, text.expand(2, -1, -1), return_dict=False)[0]
    assert torch.allclose(v[:, :, 1:], wanted[:, :, 1:], atol=2e-5)
    assert torch.allclose((x - 0.7 * v)[:, :, :1], small.first, atol=1e-6)
    # What the state holds in frame 0 is not looked at.
    x[:, :, 0] = 100.0
    assert torch.equal(variant.velocity(x, 0.7, conditioning)[:, :, 1:], v[:, :, 1:])
    # One time for all tokens is the scalar time.
    plain = variant.velocity(x, 0.7, WanConditioning(text=text))
    scalar = small.model(x, torch.tensor([700.0] * 2), text.expand(2, -1, -1), return_dict=False)
    assert torch.allclose(plain, scalar[0], atol=2e-5)


def test_misshapen_first_frames(small, variant, tools, tmp_path):
    x, text = torch.zeros(1, 48, 3, 2, 4), torch.zeros(1, 12, 32)
    for shape in ((1, 48, 2, 2, 4), (1, 16, 1, 2, 4), (3, 48, 1, 2, 4), (48, 1, 2, 4)):
        with pytest.raises(InputError, match=r"a first frame must be \[B, 48, 1, 2, 4\]"):
            variant.velocity(x, 0.5, WanConditioning(text, first_frame=torch.zeros(shape)))
    save_file(tools.official(tools.random_wan(36, layers=1, dim=128)), tmp_path / "i.safetensors")
    i2v = tools.open_file(tmp_path / "i.safetensors")
    i2v.load("cpu", "fp32")
    with pytest.raises(InputError, match="takes mask and condition"):
        first = torch.zeros(1, 16, 1, 2, 4)
        i2v.velocity(torch.zeros(1, 16, 3, 2, 4), 0.5, WanConditioning(text, None, first))


@pytest.fixture
def run(small, monkeypatch):
    """Run a sampler and a guidance; everything the transformer was given is kept."""
    text = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(3))
    given = {
        name: WanConditioning(text=text[i : i + 1], first_frame=small.first)
        for i, name in enumerate(("positive", "negative"))
    }
    monkeypatch.setattr(WanFamily, "encode", lambda *_: given)
    monkeypatch.setattr(WanFamily, "decode", lambda *_: torch.zeros(9, 32, 64, 3))

    def go(sampler, guidance, calls):
        from diffusers import WanTransformer3DModel

        inner = WanTransformer3DModel.forward

        def forward(self, x, time, *args, **kwargs):
            calls.append((x, time))
            return inner(self, x, time, *args, **kwargs)

        schedule = gatekit.Schedule.from_dict(
            {
                "version": 1,
                "name": "small",
                "family": {"use": "wan22", "task": "ti2v-5b"},
                "text_encoder": {"file": "umt5.safetensors"},
                "vae": {"file": "vae.safetensors"},
                "variants": {"ti2v": {"use": "safetensors", "file": "ti2v.safetensors"}},
                "video": VIDEO,
                "sigmas": {"use": "explicit", "values": [*GRID, 0.0]},
                "device": "cpu",
                "phases": [
                    {"name": "all", "variant": "ti2v", "sampler": sampler, "guidance": guidance}
                ],
            },
            folder=small.folder,
        )
        with monkeypatch.context() as patch:
            patch.setattr(WanTransformer3DModel, "forward", forward)
            return gatekit.run(gatekit.resolve(schedule), Inputs(image=small.image, seed=5))

    return go


CFG = {"use": "cfg", "scale": 5.0}


@pytest.mark.parametrize("sampler", sorted(gatekit.list_samplers()))
def test_every_sampler_keeps_the_frame(sampler, small, run):
    calls = []
    result = run(sampler, CFG, calls)
    assert calls
    for x, time in calls:
        assert torch.equal(x[:, :, :1], small.first)
        assert not time[:, :2].any() and (time[:, 2:] == time[0, 2]).all() and time[0, 2] > 0
    assert torch.equal(result.latent[:, :1], small.first[0])
    assert not torch.equal(result.latent[:, 1:2], small.first[0])


@pytest.mark.parametrize("guidance", ["cfg_zero_star", "apg"])
def test_every_guidance_keeps_the_frame(guidance, small, run):
    calls = []
    result = run("unipc", guidance, calls)
    assert all(torch.equal(x[:, :, :1], small.first) for x, _ in calls)
    assert torch.equal(result.latent[:, :1], small.first[0])


def test_euler_is_the_official_procedure(small, run, variant):
    """The latent's frame 0 overwritten before the first step and after each one."""
    result = run("euler", CFG, [])
    text = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(3))
    noise = gatekit.NoiseSource(5).normal((1, 48, 3, 2, 4), step=0, purpose="start")
    x = torch.cat([small.first, noise[:, :, 1:]], dim=2)
    for sigma, after in zip(GRID, (*GRID[1:], 0.0), strict=True):
        times = torch.tensor([[0.0] * 2 + [1000 * sigma] * 4])
        positive, negative = (
            small.model(x, times, text[i : i + 1], return_dict=False)[0] for i in (0, 1)
        )
        x = x + (after - sigma) * (negative + 5.0 * (positive - negative))
        x = torch.cat([small.first, x[:, :, 1:]], dim=2)
    assert (result.latent - x[0]).norm() < 1e-5 * x.norm()
