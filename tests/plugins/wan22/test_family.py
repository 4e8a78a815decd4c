"""The family: sizes, inputs, encoding and decoding with small parts."""

import json
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from gatekit import (
    Components,
    ComponentSpec,
    InputError,
    Inputs,
    ScheduleError,
    VideoSpec,
    WeightsError,
)
from gatekit_wan22 import GGUFVariant, WanFamily, load_text_encoder, load_vae
from gatekit_wan22.image import check_image, fit, tell_cut, to_tensor

SMALL = VideoSpec(width=48, height=32, frames=9, fps=16)


@pytest.fixture(scope="module")
def parts(tmp_path_factory, tools):
    """A small VAE and a small UMT5 with its tokenizer."""
    from diffusers import AutoencoderKLWan

    from gatekit_wan22 import layout_vae

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parts")
    vae = AutoencoderKLWan(base_dim=8)
    save_file(layout_vae.diffusers_to_official(vae.state_dict()), folder / "vae.safetensors")
    umt5 = tools.small_umt5(folder / "umt5.safetensors")
    return SimpleNamespace(vae=folder / "vae.safetensors", umt5=umt5)


def family(parts, task="t2v-a14b", cls=WanFamily, **files):
    spec = {"text_encoder": parts.umt5, "vae": parts.vae} | files
    components = Components(**{k: ComponentSpec(file=v) for k, v in spec.items()})
    return cls(cls.Params(task=task), components)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_tasks():
    assert WanFamily.Params().task == "t2v-a14b"
    assert WanFamily.Params(task="ti2v-5b").task == "ti2v-5b"
    with pytest.raises(ValidationError, match="t2v-a14b"):
        WanFamily.Params(task="t2v")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"width": 840}, r"width must be a multiple of 16.*840.*use 832"),
        ({"height": 0}, "use 16"),
        ({"frames": 80}, r"frames must be 4k \+ 1.*use 81"),
        ({"frames": 0}, "use 1"),
        ({"fps": 0}, "fps"),
    ],
)
def test_impossible_sizes(changes, match, parts):
    video = VideoSpec(**({"width": 832, "height": 480, "frames": 81, "fps": 16} | changes))
    with pytest.raises(ScheduleError, match=match):
        family(parts).check_video(video)


def test_possible_sizes(parts):
    f = family(parts)
    video = VideoSpec(**f.default_video())
    f.check_video(video)
    assert f.latent_shape(video) == (16, 21, 60, 104)
    assert f.latent_shape(SMALL) == (16, 3, 4, 6)


def test_inputs(parts, picture, tmp_path):
    t2v, i2v = family(parts), family(parts, "i2v-a14b")
    t2v.check_inputs(Inputs(prompt="a cat"))
    i2v.check_inputs(Inputs(image=picture))
    i2v.check_inputs(Inputs(image=str(picture)))
    with Image.open(picture) as image:
        i2v.check_inputs(Inputs(image=image))
    i2v.check_inputs(Inputs(image=torch.rand(3, 8, 8)))
    (tmp_path / "not.png").write_text("no image at all")
    (tmp_path / "cut.png").write_bytes(picture.read_bytes()[:300])
    unreadable = pytest.raises(InputError, match="not a readable image")
    with Image.open(tmp_path / "cut.png") as cut, unreadable:
        i2v.check_inputs(Inputs(image=cut))
    bad = [
        (t2v, Inputs(image=picture), "takes no image"),
        (i2v, Inputs(), "needs an image"),
        (i2v, Inputs(image=tmp_path / "not.png"), "not a readable image; give a PNG, .* file$"),
        (i2v, Inputs(image=tmp_path / "cut.png"), "not a readable image; give a PNG, .* file$"),
        (i2v, Inputs(image=tmp_path / "none.png"), "^-i: .*none.png: no such image"),
        (i2v, Inputs(image=tmp_path), "a folder"),
        (i2v, Inputs(image=torch.rand(1, 8, 8)), "not an image"),
        (i2v, Inputs(image=torch.rand(3, 8, 8) * 255), r"in \[0, 1\]"),
        (i2v, Inputs(image=torch.full((3, 8, 8), float("nan"))), r"in \[0, 1\]"),
        (i2v, Inputs(image=7), "^-i: not an image"),
        (i2v, Inputs(image=picture, last_image=tmp_path / "none.png"), "^--last-image: .*none.png"),
        (t2v, Inputs(last_image=picture), "takes no last frame"),
        (family(parts, "ti2v-5b"), Inputs(image=picture, last_image=picture), "no last frame"),
        (t2v, Inputs(prompt=3), "prompt must be text"),
    ]
    for f, inputs, match in bad:
        with pytest.raises(InputError, match=match) as caught:
            f.check_inputs(inputs)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((32, 32), None),
        ((64, 64), None),
        ((201, 200), None),  # half a hundredth
        ((64, 32), "is 64x32, the video 32x32: 50 % of its width is cut off, evenly on both sides"),
        ((30, 40), "is 30x40, the video 32x32: 25 % of its height is cut off"),
    ],
)
def test_what_fitting_cuts_off_is_said(size, said, caplog):
    with caplog.at_level("INFO", "gatekit.wan22"):
        tell_cut(torch.rand(3, size[1], size[0]), "first.png", 32, 32)
    found = [r.message for r in caplog.records]
    assert len(found) == (said is not None) and all(
        m.startswith(f"first.png {said}") for m in found
    )


def test_a_plan_needs_a_tokenizer(parts, tmp_path):
    from safetensors.torch import load_file

    save_file(load_file(parts.umt5), tmp_path / "bare.safetensors")
    bare = family(parts, text_encoder=tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match=r"no tokenizer.*text_encoder\.tokenizer"):
        bare.check_components()
    family(parts).check_components()


def test_text_to_video(parts):
    f = family(parts)
    out = f.encode(Inputs(prompt="a cat"), SMALL, "cpu")
    encoder = load_text_encoder(parts.umt5)
    assert set(out) == {"positive", "negative"}
    assert out["positive"].image is None
    assert torch.equal(out["positive"].text, encoder.embed(["a cat"]))
    assert torch.equal(out["negative"].text, encoder.embed([WanFamily.negative_prompt]))
    assert out["positive"].text.shape == (1, 24, 32)
    out = f.encode(Inputs(prompt="a cat", negative_prompt=""), SMALL, "cpu")
    assert torch.equal(out["negative"].text, encoder.embed([""]))


def test_image_to_video_against_a_plain_construction(parts, picture):
    """Channels [mask 4, condition 16]; the condition is the encoded [image, zero frames]."""
    out = family(parts, "i2v-a14b").encode(Inputs(prompt="a cat", image=picture), SMALL, "cpu")
    frame = fit(to_tensor(picture), 48, 32) * 2 - 1
    video = torch.cat([frame[:, None], torch.zeros(3, 8, 32, 48)], dim=1)[None]
    condition = load_vae(parts.vae).encode(video)
    mask = torch.zeros(1, 4, 3, 4, 6)
    mask[:, :, 0] = 1
    for name in ("positive", "negative"):
        assert torch.equal(out[name].image, torch.cat([mask, condition], dim=1))


@pytest.mark.parametrize("first", [True, False])
def test_last_frame_against_a_plain_construction(parts, picture, first):
    """The video that is encoded has each known frame in its place, and grey elsewhere."""
    last = torch.rand(3, 32, 48, generator=torch.Generator().manual_seed(3))
    inputs = Inputs(prompt="a cat", image=picture if first else None, last_image=last)
    out = family(parts, "i2v-a14b").encode(inputs, SMALL, "cpu")["positive"].image
    video = torch.full((9, 32, 48, 3), 0.5)
    slots = torch.zeros(12)
    if first:
        video[0] = fit(to_tensor(picture), 48, 32).permute(1, 2, 0)
        slots[:4] = 1
    video[-1] = last.permute(1, 2, 0)
    slots[-1] = 1
    condition = load_vae(parts.vae).encode((video * 2 - 1).permute(3, 0, 1, 2)[None])
    assert torch.equal(out[:, 4:], condition)
    assert torch.equal(out[0, :, :, 2, 5][:4], slots.view(3, 4).T)


def test_one_frame_has_no_first_and_last(parts, picture):
    one = VideoSpec(width=48, height=32, frames=1, fps=16)
    with pytest.raises(InputError, match="one frame has no last frame"):
        family(parts, "i2v-a14b").encode(Inputs(image=picture, last_image=picture), one, "cpu")


def bomb(path, width, height):
    """A PNG whose header claims a size; there are no pixels in it."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("size", [(20_000, 6_000), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_not_decoded(parts, tmp_path, size):
    inputs = Inputs(image=bomb(tmp_path / "bomb.png", *size))
    with pytest.raises(InputError, match=r"bomb\.png: this image has more than 100 million"):
        family(parts, "i2v-a14b").check_inputs(inputs)


def hiding(mode):
    """Half red, half transparent over green, in a mode that can hide it."""
    image = Image.new("RGBA", (8, 4), (255, 0, 0, 255))
    image.paste((0, 255, 0, 0), (4, 0, 8, 4))
    if mode == "P":
        image = image.quantize(4)
    elif mode == "RGB":
        image = image.convert("RGB")
        image.info["transparency"] = (0, 255, 0)
    return image.convert(mode) if mode in ("LA", "RGBa") else image


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "RGBa"])
@pytest.mark.parametrize("as_file", [True, False])
def test_what_is_transparent_is_black_and_said(mode, as_file, tmp_path, caplog):
    image = hiding(mode)
    if as_file:
        if mode == "RGBa":
            pytest.skip("PNG has no premultiplied colours")
        image.save(tmp_path / "half.png")
        image = tmp_path / "half.png"
    check_image(image)
    assert not caplog.records  # checking says nothing
    found = to_tensor(image)
    assert found[:, :, :4].max() > 0.2 and not found[:, :, 4:].any()
    (record,) = caplog.records
    assert "half.png" in record.message or not as_file
    assert "transparent in parts: they are black" in record.message


def test_an_opaque_alpha_channel_changes_nothing(picture, tmp_path, caplog):
    with Image.open(picture) as image:
        image.convert("RGBA").save(tmp_path / "opaque.png")
    assert torch.equal(to_tensor(tmp_path / "opaque.png"), to_tensor(picture))
    assert not caplog.records


def test_optional_image_is_explicit_zeros(parts, picture):
    class Small(WanFamily):
        name = "small"
        image_use = "optional"

    f = family(parts, cls=Small)
    out = f.encode(Inputs(prompt="a cat"), SMALL, "cpu")["positive"]
    assert out.image.shape == (1, 20, 3, 4, 6) and not out.image.any()
    assert f.encode(Inputs(image=picture), SMALL, "cpu")["positive"].image[:, :4, 0].all()


def test_decode(parts):
    latent = torch.randn(16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    video = family(parts).decode(latent, SMALL, "cpu")
    assert video.shape == (9, 32, 48, 3) and video.dtype == torch.float32
    assert video.min() >= 0 and video.max() <= 1
    raw = load_vae(parts.vae).decode(latent[None])[0]
    assert torch.equal(video[4, 5, 6], (raw[:, 4, 5, 6] + 1) / 2)


@pytest.mark.parametrize("size", [(48, 32), (100, 40), (20, 90), (33, 17), (48, 33)])
def test_image_rule(size):
    """Scaled to cover, centre-cropped: a centred gradient keeps its centre."""
    w, h = size
    image = torch.linspace(0, 1, w).expand(3, h, w)
    out = fit(image, 48, 32)
    assert out.shape == (3, 32, 48)
    assert out.mean().item() == pytest.approx(0.5, abs=0.02)
    assert torch.allclose(out, 1 - out.flip(-1), atol=0.05)
    if size == (48, 32):
        assert torch.equal(out, image)


def test_rotated_photographs_stand_upright(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert to_tensor(tmp_path / "phone.jpg").shape == (3, 20, 10)


def test_components_are_checked_by_their_headers(parts, wan, tmp_path):
    family(parts).check_components()
    tight = family(parts)
    vae = ComponentSpec(file=parts.vae, tile=100)
    tight.components = Components(tight.components.text_encoder, vae)
    with pytest.raises(
        ScheduleError, match=r"border on both sides.*'vae\.tile' must be at least 120"
    ):
        tight.check_components()
    with pytest.raises(WeightsError, match="not a Wan VAE"):
        family(parts, vae=parts.umt5).check_components()
    with pytest.raises(WeightsError, match="not a UMT5"):
        family(parts, text_encoder=wan.path).check_components()
    with pytest.raises(ScheduleError, match="file of 'vae' was not found"):
        family(parts, vae=None).check_components()
    from diffusers import AutoencoderKLWan

    from gatekit_wan22 import layout_vae

    model = AutoencoderKLWan(base_dim=8, z_dim=4, latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    path = tmp_path / "z4.safetensors"
    metadata = {"latents_mean": json.dumps([0.0] * 4), "latents_std": json.dumps([1.0] * 4)}
    save_file(layout_vae.diffusers_to_official(model.state_dict()), path, metadata=metadata)
    with pytest.raises(ScheduleError, match="this VAE has 4 channels"):
        family(parts, vae=path).check_components()


def test_variants_are_checked_against_the_task(parts, wan, tools, tmp_path):
    t2v, i2v = family(parts), family(parts, "i2v-a14b")
    t2v_model = tools.open_file(wan.path)
    t2v.check_variant(t2v_model, "bf16")
    with pytest.raises(WeightsError, match=r"a text-to-video model.*i2v-a14b"):
        i2v.check_variant(t2v_model, "bf16")
    with pytest.raises(ScheduleError, match="fp17"):
        t2v.check_variant(t2v_model, "fp17")
    save_file(tools.official(tools.random_wan(in_channels=36)), tmp_path / "i2v.safetensors")
    i2v_model = tools.open_file(tmp_path / "i2v.safetensors")
    i2v.check_variant(i2v_model, "fp32")
    with pytest.raises(WeightsError, match=r"an image-to-video model.*t2v-a14b"):
        t2v.check_variant(i2v_model, "fp32")
    wide = tools.random_wan(text_dim=48, layers=1)
    save_file(tools.official(wide), tmp_path / "wide.safetensors")
    with pytest.raises(WeightsError, match=r"embeddings of 48.*umt5\.safetensors gives 32"):
        t2v.check_variant(tools.open_file(tmp_path / "wide.safetensors"), "fp32")


def test_missing_section():
    with pytest.raises(ScheduleError, match="no 'vae'"):
        WanFamily(WanFamily.Params(), Components()).open_vae("cpu")


def test_a_video_is_fitted_frame_by_frame_and_encoded(parts, caplog):
    caplog.set_level("INFO", "gatekit.wan22")
    frames = torch.rand(9, 40, 100, 3, generator=torch.Generator().manual_seed(2))
    latent = family(parts).encode_video(iter(frames), SMALL, "cpu")
    clip = torch.stack([fit(f.permute(2, 0, 1), 48, 32) for f in frames], dim=1)[None]
    assert torch.equal(latent, load_vae(parts.vae).encode(clip * 2 - 1))
    family(parts, "i2v-a14b").encode_image(frames[0].permute(2, 0, 1), SMALL, "cpu")
    cut = "is 100x40, the video 48x32: 40 % of its width is cut off, evenly on both sides"
    told = [f"the {what} {cut}" for what in ("video to start from", "image")]
    assert [r.message for r in caplog.records if "cut off" in r.message] == told


def test_a_latent_of_unknown_making_is_decoded_by_its_vae(parts, tmp_path):
    """Without a schedule the video's size comes from the latent and the VAE's strides."""
    from gatekit import decode

    latent = torch.randn(16, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    save_file({"latent": latent}, tmp_path / "l.safetensors")
    folder = decode(tmp_path / "l.safetensors", f"{tmp_path}/out/", vae=parts.vae, device="cpu")
    wanted = (load_vae(parts.vae).decode(latent[None])[0] + 1) / 2
    assert len(list(folder.iterdir())) == 9
    with Image.open(folder / "0005.png") as image:
        shown = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert torch.allclose(shown, wanted[:, 4].clamp(0, 1), atol=0.51 / 255)
    save_file({"latent": latent[:4].contiguous()}, tmp_path / "l.safetensors")
    with pytest.raises(InputError, match="this VAE's latents have 16 channels"):
        decode(tmp_path / "l.safetensors", f"{tmp_path}/out/", vae=parts.vae, device="cpu")
    with pytest.raises(WeightsError, match="no installed family knows this file as a VAE"):
        decode(tmp_path / "l.safetensors", f"{tmp_path}/out/", vae=parts.umt5, device="cpu")
    with pytest.raises(WeightsError, match="no such VAE"):
        decode(tmp_path / "l.safetensors", f"{tmp_path}/out/", vae=tmp_path / "no", device="cpu")


@pytest.mark.parametrize(
    ("experts", "warns"),
    [
        ("high low", False),
        ("high high low", False),
        ("low high", True),
        ("high low high", True),
        ("high high", False),
        ("none low", False),
    ],
)
def test_swapped_experts_are_a_warning(experts, warns, parts):
    words = experts.split()
    edges = np.linspace(1.0, 0.0, len(words) + 1).tolist()
    phases = {
        f"p{i}": (
            GGUFVariant.Params(file="x", expert=None if word == "none" else word),
            edges[i : i + 2],
        )
        for i, word in enumerate(words)
    }
    warnings = family(parts).phase_warnings(phases)
    assert len(warnings) == warns
    if warns:
        assert "are they swapped?" in warnings[0] and "'p" in warnings[0]
