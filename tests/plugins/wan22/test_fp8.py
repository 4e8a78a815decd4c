"""fp8 files: plain, ``fp8_scaled`` and ComfyUI's newer layout, against models of their values."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gatekit import WeightsError
from gatekit_wan22 import WanConditioning, read_header
from gatekit_wan22.mapped import MappedFile
from gatekit_wan22.sizes import read_sizes

TYPES = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}


def quantise(state, is_matrix, dtype=torch.float8_e4m3fn, rows=False):
    """fp8 weights, their scales, and the values that the two stand for in float32."""
    stored, scales, values = {}, {}, {}
    for name, tensor in state.items():
        if not is_matrix(name):
            stored[name] = tensor.half()
            values[name] = stored[name].float()
            continue
        most = tensor.abs().amax(1) if rows else tensor.abs().max()
        scale = (most / torch.finfo(dtype).max).float()
        stored[name] = (tensor / scale.view(-1, 1)).to(dtype)
        scales[name] = scale
        values[name] = stored[name].float() * scale.view(-1, 1)
    return stored, scales, values


def layout_old(stored, scales, prefix=""):
    out = {prefix + n: t for n, t in stored.items()}
    out[f"{prefix}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    for name, scale in scales.items():
        out[prefix + name.replace(".weight", ".scale_weight")] = scale
        out[prefix + name.replace(".weight", ".scale_input")] = torch.ones(())
    return out, {}


def layout_new(stored, scales, prefix="", form="float8_e4m3fn"):
    out, _ = {prefix + n: t for n, t in stored.items()}, None
    for name, scale in scales.items():
        out[prefix + name.replace(".weight", ".weight_scale")] = scale
        text = json.dumps({"format": form}).encode()
        mark = torch.tensor(list(text), dtype=torch.uint8)
        out[prefix + name.replace(".weight", ".comfy_quant")] = mark
    return out, {}


def layout_metadata(stored, scales, prefix=""):
    out, _ = layout_new(stored, scales, prefix)
    out = {n: t for n, t in out.items() if not n.endswith(".comfy_quant")}
    layers = {
        prefix + n.removesuffix(".weight"): {"format": "float8_e4m3fn", "x": 1} for n in scales
    }
    text = json.dumps({"format_version": "1.0", "layers": layers})
    return out, {"_quantization_metadata": text}


LAYOUTS = [layout_old, layout_new, layout_metadata]


@pytest.fixture(scope="module")
def reference(wan, tools, inputs):
    """Velocity of a model whose weights are the values of the fp8 ones."""

    def velocity(values, tmp_path):
        path = tmp_path / "values.safetensors"
        save_file(values, path)
        variant = tools.open_file(path)
        variant.load("cpu", "fp32")
        return variant.velocity(inputs.x, inputs.sigma, WanConditioning(text=inputs.text))

    return velocity


@pytest.mark.parametrize("rows", [False, True], ids=["tensor", "rows"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("keep", ["never", "always"])
def test_scaled_file_is_the_model_of_its_values(
    layout, keep, rows, wan, tools, inputs, reference, tmp_path
):
    stored, scales, values = quantise(wan.state, tools.is_matrix, rows=rows)
    state, metadata = layout(stored, scales, prefix="model.diffusion_model.")
    path = tmp_path / "fp8.safetensors"
    save_file(state, path, metadata)
    variant = tools.open_file(path, keep=keep)
    facts = variant.facts()
    assert facts.storage == "fp8_e4m3fn_scaled"
    assert facts.types == {"F16": 49, "F8_E4M3": 20}
    assert facts.parameters == sum(t.numel() for t in wan.state.values())
    variant.load("cpu", "fp32")
    decoding = sum(type(m).__name__ == "StoredLinear" for m in variant.module.modules())
    assert decoding == (20 if keep == "never" else 0)
    found = variant.velocity(inputs.x, inputs.sigma, WanConditioning(text=inputs.text))
    assert torch.equal(found, reference(values, tmp_path))


@pytest.mark.parametrize("name", TYPES)
def test_plain_fp8(name, wan, tools, inputs, reference, tmp_path):
    """Every tensor of two dimensions or more in fp8, as plain casts of a file are."""
    state = {n: t.to(TYPES[name]) if t.ndim > 1 else t for n, t in wan.state.items()}
    path = tmp_path / "fp8.safetensors"
    save_file(state, path)
    variant = tools.open_file(path, keep="never")
    assert variant.facts().storage == f"fp8_{name[3:].lower()}".replace("e4m3", "e4m3fn")
    variant.load("cpu", "fp32")
    found = variant.velocity(inputs.x, inputs.sigma, WanConditioning(text=inputs.text))
    assert torch.equal(found, reference({n: t.float() for n, t in state.items()}, tmp_path))


def test_scale_of_the_input_is_kept_and_not_applied(wan, tools, tmp_path):
    stored, scales, values = quantise(wan.state, tools.is_matrix)
    state, _ = layout_old(stored, scales)
    name = "blocks.0.ffn.0.weight"
    state["blocks.0.ffn.0.scale_input"] = torch.tensor(7.0)
    path = tmp_path / "fp8.safetensors"
    save_file(state, path)
    header = read_header(path)
    assert header.tensors.keys() == wan.state.keys()
    info = header.tensors[name]
    mapped = MappedFile(header)
    assert info.scale_input is not None
    assert mapped.read(info.scale_input, torch.float32).item() == 7.0
    assert torch.equal(mapped.read(info, torch.float32), values[name])
    assert torch.equal(mapped.read(info, torch.bfloat16), values[name].bfloat16())


def test_scales_longer_than_a_chunk(monkeypatch):
    from gatekit_wan22 import dequantise

    monkeypatch.setattr(dequantise, "CHUNK", 100)
    weights = torch.randn(37, 24).to(torch.float8_e4m3fn)
    scale = torch.rand(37) + 0.5
    found = dequantise.dequantise(weights.view(torch.uint8).flatten(), "F8_E4M3", None, scale)
    assert torch.equal(found.view(37, 24), weights.float() * scale[:, None])
    found = dequantise.dequantise(weights.view(torch.uint8).flatten(), "F8_E4M3", None, scale[:1])
    assert torch.equal(found.view(37, 24), weights.float() * scale[0])


def test_all_256_values_of_both_types():
    """By the definition of the formats: sign, exponent, mantissa; 448 and 57344 the largest."""
    from gatekit_wan22.dequantise import dequantise

    every = torch.arange(256, dtype=torch.uint8)
    for name, exponent_bits, bias in (("F8_E4M3", 4, 7), ("F8_E5M2", 5, 15)):
        mantissa_bits = 7 - exponent_bits
        found = dequantise(every, name).tolist()
        for byte, value in enumerate(found):
            sign = -1.0 if byte & 0x80 else 1.0
            exponent = (byte >> mantissa_bits) & ((1 << exponent_bits) - 1)
            mantissa = byte & ((1 << mantissa_bits) - 1)
            top = exponent == (1 << exponent_bits) - 1
            if top and (name == "F8_E5M2" or mantissa == 7):
                assert not (abs(value) < float("inf"))  # inf or nan
                continue
            steps = mantissa + (1 << mantissa_bits) * (exponent > 0)
            assert value == sign * steps * 2.0 ** (max(exponent, 1) - bias - mantissa_bits)


def bytes_of(number):
    return torch.zeros(number, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda s: s.update({"a.comfy_quant": torch.zeros(9, dtype=torch.uint8)}),
            "cannot be read",
        ),
        (
            lambda s: s.update({"a.comfy_quant": torch.zeros(5000, dtype=torch.uint8)}),
            "cannot be read",
        ),
        (
            lambda s: s.update({"blocks.0.ffn.0.scale_weight": torch.zeros(4, 32)}),
            r"'blocks.0.ffn.0.scale_weight' is F32 of shape \[4, 32\]",
        ),
        (
            lambda s: s.update({"blocks.0.ffn.0.scale_weight": torch.zeros((), dtype=torch.int32)}),
            "is I32 of shape",
        ),
        (lambda s: s.update({"a.scale_weight": torch.zeros(())}), "unexpected: a.scale_weight"),
    ],
)
def test_scales_that_are_wrong(change, match, wan, tools, tmp_path):
    stored, scales, _ = quantise(wan.state, tools.is_matrix)
    state, _ = layout_old(stored, scales)
    change(state)
    path = tmp_path / "fp8.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=match) as caught:
        read_sizes(read_header(path))
    assert str(path) in str(caught.value) and caught.value.remedy


@pytest.mark.parametrize("form", ["nvfp4", "mxfp8", "int8_tensorwise", None, ["x"]])
def test_other_quantisations_are_named(form, wan, tools, tmp_path):
    stored, scales, _ = quantise(wan.state, tools.is_matrix)
    state, _ = layout_new(stored, scales, form=form)
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    with pytest.raises(WeightsError, match=r"is quantised as '.*which cannot be decoded"):
        read_header(path)


def test_a_file_whose_data_is_not_aligned(wan, tools, tmp_path):
    """The format does not promise alignment; torch's views need it."""
    source = wan.path.read_bytes()
    length = int.from_bytes(source[:8], "little")
    shifted = tmp_path / "odd.safetensors"
    header = source[8 : 8 + length].rstrip() + b" "
    header += b" " * (1 - len(header) % 2)
    shifted.write_bytes(len(header).to_bytes(8, "little") + header + source[8 + length :])
    assert (8 + len(header)) % 2 == 1
    read = read_header(shifted)
    name = "blocks.0.ffn.0.weight"
    found = MappedFile(read).read(read.tensors[name], torch.float32)
    assert torch.equal(found, wan.state[name])
