"""Against recorded outputs of Wan's own code; ``data/README.md`` says how they were made."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import gatekit
from gatekit_wan22 import WanConditioning, load_text_encoder, load_vae, pad_text

HERE = Path(__file__).parent
spec = importlib.util.spec_from_file_location("wan22_recipe", HERE / "recipe.py")
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)
RECORDED = load_file(HERE / "data" / "official.safetensors")
SHAPES = json.loads((HERE / "data" / "official_shapes.json").read_text())
PRECISIONS = [("fp32", 1e-4), ("bf16", 2e-2)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """One file a model, under its official names, of weights made from the recipe."""
    folder = tmp_path_factory.mktemp("official")
    for model, shapes in SHAPES.items():
        save_file(recipe.state_dict(model, shapes), folder / f"{model}.safetensors")
    return folder


def close(found, name, within):
    wanted = RECORDED[name].double()
    assert found.shape == wanted.shape and wanted.std() > 0.3
    error = float((found.double() - wanted).norm() / wanted.norm())
    print(f"{name} within {within:g}: {error:.1e}")  # shown by pytest -s
    assert error < within, f"{name}: {error:.2e}"


def conditioning(kind, which="positive"):
    text = pad_text(recipe.text(which))
    if kind == "i2v":
        return WanConditioning(text, image=recipe.numbers("image", 20, 3, 4, 6)[None])
    first = recipe.numbers("first", 48, 1, 4, 6)[None] if kind == "ti2v" else None
    return WanConditioning(text, first_frame=first)


@pytest.fixture
def opened(files):
    variants = []

    def open_model(kind, compute, **params):
        spec = {"use": "safetensors", "file": str(files / f"{kind}.safetensors"), **params}
        variant = gatekit.open_variant(spec, family="wan22", device="cpu", compute=compute)
        variants.append(variant)
        return variant

    yield open_model
    for variant in variants:
        variant.unload()


@pytest.mark.parametrize(("compute", "within"), PRECISIONS)
@pytest.mark.parametrize("kind", recipe.TRANSFORMERS)
def test_velocity(kind, compute, within, opened):
    variant, channels = opened(kind, compute), recipe.TRANSFORMERS[kind]["out_dim"]
    for sigma in recipe.GRID:
        v = variant.velocity(recipe.state(channels), sigma, conditioning(kind))[0]
        name = f"{kind}/velocity/{sigma}"
        if kind == "ti2v":  # what the model says of the known frame is used by nobody
            v = torch.cat([RECORDED[name][:, :1], v[:, 1:]], dim=1)
        close(v, name, within)


@pytest.mark.parametrize(("compute", "within"), PRECISIONS)
def test_a_run_with_a_first_frame(compute, within, opened):
    """Wan's UniPC, guidance and overwriting, against gatekit's samplers, which know of none."""
    variant = opened("ti2v", compute, timesteps="integer")
    given = [conditioning("ti2v", which) for which in ("positive", "negative")]

    def denoise(x, sigma):
        a, b = (variant.velocity(x, sigma, c) for c in given)
        return given[0].with_known(x - sigma * (b + recipe.SCALE * (a - b)))

    u = torch.linspace(0.999, 0, recipe.STEPS + 1, dtype=torch.float64)[:-1]
    sigmas = [float(s) for s in recipe.SHIFT * u / (1 + (recipe.SHIFT - 1) * u)] + [0.0]
    x = gatekit.sample(denoise, recipe.state(48), sigmas, sampler="unipc", seed=0, path="flow")
    close(x[0], "ti2v/run", within)
    assert torch.equal(x[:, :, :1], given[0].first_frame)


@pytest.mark.parametrize(("precision", "within"), PRECISIONS)
def test_text_encoder(precision, within, files):
    ids, mask = recipe.ids()
    encoder = load_text_encoder(files / "umt5.safetensors", precision=precision, device="cpu")
    close(encoder.embed_ids(ids, mask)[:, :12], "umt5", within)


@pytest.mark.parametrize(("precision", "within"), PRECISIONS)
@pytest.mark.parametrize("kind", recipe.VAES)
def test_vae(kind, precision, within, files, monkeypatch):
    vae = load_vae(files / f"{kind}.safetensors", precision=precision, device="cpu")
    video = recipe.numbers("video", 1, 3, 9, 32, 64) / 3**0.5
    z = vae.sizes.z_dim
    latent = recipe.numbers(f"latent/{z}", 1, z, 3, 2, 3)
    close(vae.encode(video), f"{kind}/encode", within)
    close(vae.decode(latent), f"{kind}/decode", within)
    if precision == "fp32":  # the same by pieces
        from gatekit_wan22 import vae as module

        monkeypatch.setattr(module, "WHOLE_CLIP", 0)
        close(vae.encode(video), f"{kind}/encode", within)
        close(vae.decode(latent), f"{kind}/decode", within)
