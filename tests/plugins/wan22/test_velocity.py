"""The velocity of a file equals that of diffusers' model with the same weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gatekit import InputError, ScheduleError
from gatekit_wan22 import SafetensorsVariant, WanConditioning

MIXES = {
    "Q2_K": lambda n, _: "Q3_K" if ".v.weight" in n else "Q2_K",
    "Q5_K_S": lambda n, _: "Q5_K",
    "Q5_K_M": lambda n, _: "Q6_K" if ".v." in n or ".ffn.2" in n else "Q5_K",
    "Q4_0": lambda n, _: "Q4_0",
    "Q8_0": lambda n, _: "Q8_0",
    "IQ4_XS": lambda n, _: "IQ4_XS",
}


def direct(model, x, sigma, text, image=None):
    """diffusers alone, its time embedding's sinusoid taken to float64 as in Wan's code."""
    embedder = model.condition_embedder

    def sinusoid(t):
        i = torch.arange(128, dtype=torch.float64)
        angle = t.double()[:, None] * torch.exp(-np.log(10000.0) * i / 128)
        return torch.cat([angle.cos(), angle.sin()], dim=1).float()

    saved, embedder.timesteps_proj = embedder.timesteps_proj, torch.nn.Identity()
    embedder.timesteps_proj.forward = sinusoid
    try:
        if image is not None:
            x = torch.cat([x, image.expand(len(x), -1, -1, -1, -1)], dim=1)
        time = torch.full((len(x),), 1000 * sigma, dtype=torch.float64)
        return model(x, time, text.expand(len(x), -1, -1), return_dict=False)[0]
    finally:
        embedder.timesteps_proj = saved


def velocity(variant, inputs, compute="fp32", image=None):
    variant.load("cpu", compute)
    try:
        conditioning = WanConditioning(text=inputs.text, image=image)
        return variant.velocity(inputs.x, inputs.sigma, conditioning)
    finally:
        variant.unload()


@pytest.fixture(scope="module")
def truth(wan, inputs):
    return direct(wan.model, inputs.x, inputs.sigma, inputs.text)


def test_safetensors_fp32(wan, inputs, truth, tools):
    found = velocity(tools.open_file(wan.path), inputs)
    assert found.dtype == torch.float32 and found.shape == inputs.x.shape
    assert (found - truth).abs().max() < 1e-6 * truth.abs().max()


def test_diffusers_own_forward_is_near(wan, inputs, tools):
    """Without the float64 sinusoid, diffusers differs by its rounding alone."""
    x, text = inputs.x, inputs.text.expand(2, -1, -1)
    theirs = wan.model(x, torch.full((2,), 1000 * inputs.sigma), text).sample
    found = velocity(tools.open_file(wan.path), inputs)
    assert (found - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_diffusers_names_and_prefix(wan, inputs, truth, tools, tmp_path):
    state = {n: p.clone() for n, p in wan.model.state_dict().items()}
    save_file(state, tmp_path / "diffusers.safetensors")
    save_file(
        {f"model.diffusion_model.{n}": p for n, p in wan.state.items()},
        tmp_path / "comfy.safetensors",
    )
    for name in ("diffusers", "comfy"):
        found = velocity(tools.open_file(tmp_path / f"{name}.safetensors"), inputs)
        assert (found - truth).abs().max() < 1e-6 * truth.abs().max()


@pytest.mark.parametrize(("kind", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_half_files_equal_models_of_their_values(kind, dtype, wan, inputs, tools, tmp_path):
    """GGUF and safetensors of one type give the same bits, those of the rounded weights."""
    half = {n: p.to(dtype) for n, p in wan.state.items()}
    save_file(half, tmp_path / "half.safetensors")
    tools.write_gguf(tmp_path / "half.gguf", wan.state, lambda n, t: kind)
    save_file({n: p.float() for n, p in half.items()}, tmp_path / "wide.safetensors")
    wanted = velocity(tools.open_file(tmp_path / "wide.safetensors"), inputs)
    for name in ("half.safetensors", "half.gguf"):
        assert torch.equal(velocity(tools.open_file(tmp_path / name), inputs), wanted)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("keep", ["never", "always"])
def test_quantised_equals_dequantised(mix, keep, wan, inputs, tools, tmp_path):
    """A GGUF equals a safetensors of the values that gguf-py decodes from its blocks."""
    import gguf

    kinds = MIXES[mix]
    path = tools.write_gguf(
        tmp_path / "q.gguf", wan.state, lambda n, t: kinds(n, t) if tools.is_matrix(n) else "F16"
    )
    decoded = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        shape = tuple(int(n) for n in tensor.shape[::-1])
        decoded[tensor.name] = torch.from_numpy(values.copy()).view(shape)
    save_file(decoded, tmp_path / "d.safetensors")
    wanted = velocity(tools.open_file(tmp_path / "d.safetensors"), inputs)
    variant = tools.open_file(path, keep=keep)
    assert torch.equal(velocity(variant, inputs), wanted)


def test_blocks_stay_blocks_with_keep_never(wan, tools, tmp_path):
    path = tools.write_gguf(
        tmp_path / "q.gguf", wan.state, lambda n, t: "Q4_K" if tools.is_matrix(n) else None
    )
    for keep, wanted in (("never", 20), ("always", 0), ("auto", 0)):
        variant = tools.open_file(path, keep=keep)
        variant.load("cpu", "bf16")
        modules = list(variant.module.modules())
        assert sum(type(m).__name__ == "StoredLinear" for m in modules) == wanted
        variant.unload()
        assert variant.loaded is None and variant.module is None


@pytest.mark.parametrize("fold", [(256, 16, 2, 2), (16 * 256 * 4,), (256 * 16, 1, 2, 2)])
@pytest.mark.parametrize("arch", ["wan", None, "pig", "cow"])
def test_patch_embedding_folded_and_architectures(fold, arch, wan, inputs, truth, tools, tmp_path):
    path = tools.write_gguf(
        tmp_path / "f.gguf", wan.state, arch=arch, fold=fold, prefix="model.diffusion_model."
    )
    found = velocity(tools.open_file(path), inputs)
    assert (found - truth).abs().max() < 1e-6 * truth.abs().max()


def test_original_shape_key_overrides(wan, tools, tmp_path):
    import gguf

    from gatekit_wan22 import read_header

    path = tmp_path / "o.gguf"
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_tensor("patch_embedding.weight", np.zeros((256, 64), np.float32))
    writer.add_array("comfy.gguf.orig_shape.patch_embedding.weight", [256, 16, 1, 2, 2])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_header(path).tensors["patch_embedding.weight"].shape == (256, 16, 1, 2, 2)


@pytest.mark.parametrize(("compute", "limit"), [("bf16", 2e-2), ("fp16", 4e-3)])
def test_compute_precisions(compute, limit, wan, inputs, truth, tools):
    variant = tools.open_file(wan.path)
    found = velocity(variant, inputs, compute)
    assert found.dtype == torch.float32
    assert 0 < (found - truth).norm() < limit * truth.norm()


def test_what_stays_in_float32(wan, tools):
    variant = tools.open_file(wan.path)
    variant.load("cpu", "bf16")
    wide = {n for n, p in variant.module.named_parameters() if p.dtype == torch.float32}
    narrow = {n for n, p in variant.module.named_parameters() if p.dtype == torch.bfloat16}
    variant.unload()
    for part in ("scale_shift_table", "time_embedder", "time_proj", "norm2"):
        assert any(part in n for n in wide) and not any(part in n for n in narrow)
    assert any("attn1.to_q" in n for n in narrow)


def test_time_embedding_is_not_rounded_in_bf16(wan, inputs, tools):
    """Two sigmas that bf16 cannot tell apart must give different velocities."""
    variant = tools.open_file(wan.path)
    variant.load("cpu", "bf16")
    c = WanConditioning(text=inputs.text)
    a, b = (variant.velocity(inputs.x, s, c) for s in (0.9000, 0.9010))
    variant.unload()
    assert not torch.equal(a, b)


def test_fp8_is_refused_with_a_remedy(wan, tools):
    with pytest.raises(ScheduleError, match=r"fp8 needs an NVIDIA GPU.*on cpu.*fp32 or bf16"):
        tools.open_file(wan.path).load("cpu", "fp8")


def test_integer_timesteps(wan, inputs, tools):
    exact, cut = tools.open_file(wan.path), tools.open_file(wan.path, timesteps="integer")
    assert exact.timestep(0.7004) == pytest.approx(700.4)
    assert cut.timestep(0.7004) == 700.0 and cut.timestep(0.9999) == 999.0
    inputs = type(inputs)(x=inputs.x, sigma=0.7004, text=inputs.text)
    whole = type(inputs)(x=inputs.x, sigma=0.7, text=inputs.text)
    assert torch.equal(velocity(cut, inputs), velocity(exact, whole))
    assert not torch.equal(velocity(cut, inputs), velocity(exact, inputs))


def test_each_sample_of_a_batch_as_if_alone(wan, inputs, tools):
    variant = tools.open_file(wan.path)
    variant.load("cpu", "fp32")
    c = WanConditioning(text=inputs.text)
    both = variant.velocity(inputs.x, inputs.sigma, c)
    one = variant.velocity(inputs.x[1:], inputs.sigma, c)
    variant.unload()
    assert torch.allclose(both[1:], one, atol=1e-5)


@pytest.fixture(scope="module")
def i2v(tools, tmp_path_factory):
    model = tools.random_wan(in_channels=36)
    path = tmp_path_factory.mktemp("i2v") / "i2v.safetensors"
    save_file(tools.official(model), path)
    return model, path


def test_image_channels_follow_the_noise(i2v, inputs, tools):
    model, path = i2v
    image = torch.randn(1, 20, *inputs.x.shape[2:], generator=torch.Generator().manual_seed(2))
    wanted = direct(model, inputs.x, inputs.sigma, inputs.text, image)
    found = velocity(tools.open_file(path), inputs, image=image)
    assert (found - wanted).abs().max() < 1e-6 * wanted.abs().max()


def test_image_missing_or_unwanted(i2v, wan, inputs, tools):
    image = torch.zeros(1, 20, *inputs.x.shape[2:])
    with pytest.raises(InputError, match=r"given no image.*give an image"):
        velocity(tools.open_file(i2v[1]), inputs)
    for shape in [(3, *image.shape[1:]), (1, 16, *image.shape[2:]), (1, 20, 3, 4, 4)]:
        with pytest.raises(InputError, match="mask and condition"):
            velocity(tools.open_file(i2v[1]), inputs, image=torch.zeros(shape))
    with pytest.raises(InputError, match="text-to-video model"):
        velocity(tools.open_file(wan.path), inputs, image=image)

    class Optional(SafetensorsVariant):
        image_optional = True

    without = velocity(Optional(Optional.Params(file=i2v[1])), inputs)
    assert torch.equal(without, velocity(tools.open_file(i2v[1]), inputs, image=image))


@pytest.mark.parametrize("shape", [(1, 15, 3, 4, 6), (1, 16, 3, 5, 6), (16, 3, 4, 6)])
def test_wrong_state_shapes(shape, wan, inputs, tools):
    variant = tools.open_file(wan.path)
    variant.load("cpu", "fp32")
    with pytest.raises(InputError, match="state must be"):
        variant.velocity(torch.zeros(shape), 0.5, WanConditioning(text=inputs.text))
    with pytest.raises(InputError, match="text embeddings"):
        variant.velocity(inputs.x, 0.5, WanConditioning(text=torch.zeros(1, 5, 31)))
    with pytest.raises(InputError, match="text embeddings"):
        variant.velocity(inputs.x, 0.5, WanConditioning(text=torch.zeros(3, 5, 32)))
    variant.unload()
    with pytest.raises(InputError, match="not loaded"):
        variant.velocity(inputs.x, 0.5, WanConditioning(text=inputs.text))


def test_gradients_reach_the_state(wan, inputs, tools):
    """Research on samplers may differentiate through the model."""
    variant = tools.open_file(wan.path)
    variant.load("cpu", "fp32")
    x = inputs.x[:1].clone().requires_grad_()
    variant.velocity(x, 0.5, WanConditioning(text=inputs.text)).sum().backward()
    variant.unload()
    assert x.grad is not None and x.grad.abs().max() > 0
