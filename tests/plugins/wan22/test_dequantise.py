"""Every GGML type, bit for bit as gguf-py decodes it."""

import gguf
import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import _type_traits
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit_wan22.blocks import DECODERS
from gatekit_wan22.dequantise import CHUNK, dequantise, readable_types

K_AND_LEGACY = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
OWN = [*K_AND_LEGACY, "IQ4_NL", "IQ4_XS"]


def by_gguf_py(data, kind):
    with np.errstate(all="ignore"):
        return gguf.quants.dequantize(data.copy(), kind).astype(np.float32).reshape(-1)


def assert_same_bits(found, wanted):
    """Equal bits; where one is NaN (a random scale may be), both are."""
    a, b = found.view(np.uint32), wanted.view(np.uint32)
    assert ((a == b) | (np.isnan(found) & np.isnan(wanted))).all()


@pytest.mark.parametrize("kind", sorted(_type_traits), ids=lambda k: k.name)
def test_random_blocks(kind):
    rng = np.random.default_rng(int(kind))
    data = rng.integers(0, 256, 512 * GGML_QUANT_SIZES[kind][1], dtype=np.uint8)
    found = dequantise(torch.from_numpy(data), kind.name).numpy()
    assert_same_bits(found, by_gguf_py(data, kind))


@given(st.sampled_from(OWN), st.binary(min_size=210, max_size=210))
@settings(max_examples=60, deadline=None)
def test_any_block(name, content):
    kind = GGMLQuantizationType[name]
    data = np.frombuffer(content, np.uint8)[: GGML_QUANT_SIZES[kind][1]].copy()
    assert_same_bits(dequantise(torch.from_numpy(data), name).numpy(), by_gguf_py(data, kind))


@pytest.mark.parametrize("name", K_AND_LEGACY)
def test_blocks_of_the_real_quantiser(name, tools):
    weights = np.random.default_rng(3).normal(size=(8, 1024)).astype(np.float32)
    kind = GGMLQuantizationType[name]
    blocks = tools.ggml_quantise(weights, kind).reshape(-1)
    found = dequantise(torch.from_numpy(blocks), name).numpy()
    assert np.array_equal(found, by_gguf_py(blocks, kind))
    error = np.sqrt(((found - weights.reshape(-1)) ** 2).mean())
    assert error < {"Q2_K": 0.33, "Q3_K": 0.17}.get(name, 0.1)


def test_q8_k_by_its_definition():
    """gguf-py does not decode Q8_K: float32 scale, 256 signed bytes, 16 sums."""
    rng = np.random.default_rng(0)
    scale = rng.normal(size=(3, 1)).astype(np.float32)
    q = rng.integers(-128, 128, (3, 256), dtype=np.int8)
    sums = np.zeros((3, 32), np.uint8)
    data = np.concatenate([scale.view(np.uint8), q.view(np.uint8), sums], axis=1).reshape(-1)
    assert np.array_equal(
        dequantise(torch.from_numpy(data), "Q8_K").numpy(), (scale * q).reshape(-1)
    )


def test_all_k_and_legacy_types_are_decoded_in_torch():
    assert set(OWN) <= set(DECODERS)
    assert {"F32", "F16", "BF16", "IQ3_XXS", "IQ2_S", "MXFP4"} <= readable_types()
    assert "I32" not in readable_types()


def test_longer_than_a_chunk(monkeypatch):
    monkeypatch.setattr("gatekit_wan22.dequantise.CHUNK", 700)
    kind = GGMLQuantizationType.Q4_K
    data = np.random.default_rng(0).integers(0, 60, 11 * 144, dtype=np.uint8)
    assert CHUNK > 700
    assert_same_bits(dequantise(torch.from_numpy(data), "Q4_K").numpy(), by_gguf_py(data, kind))


def test_compute_type_is_rounded_from_float32():
    data = np.random.default_rng(0).integers(0, 60, 4 * 84, dtype=np.uint8)
    exact = dequantise(torch.from_numpy(data), "Q2_K")
    rounded = dequantise(torch.from_numpy(data), "Q2_K", torch.bfloat16)
    assert rounded.dtype == torch.bfloat16
    assert torch.equal(rounded, exact.bfloat16())


@pytest.mark.parametrize("name", ["Q2_K", "Q8_0", "IQ2_S", "F8_E4M3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_into_memory_that_is_there(name, dtype, monkeypatch):
    monkeypatch.setattr("gatekit_wan22.dequantise.CHUNK", 600)
    size = 1 if name == "F8_E4M3" else GGML_QUANT_SIZES[GGMLQuantizationType[name]][1]
    data = torch.randint(0, 60, (7 * size,), dtype=torch.uint8)
    scale = torch.rand(7) if name == "F8_E4M3" else None
    wanted = dequantise(data, name, dtype, scale)
    out = torch.full_like(wanted, 7.0)
    assert dequantise(data, name, dtype, scale, out=out) is out
    assert torch.equal(out, wanted)
