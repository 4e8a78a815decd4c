"""Weights of a bench: random, never zeros; of the asked size; shared where outputs are compared."""

import pytest
import torch

import gatekit
from gatekit_bench.blocks import LAYOUTS, is_matrix, mix, random_blocks
from gatekit_bench.files import Random, write_gguf, write_safetensors
from gatekit_bench.sizes import KNOWN, SIZES, latent_of, matrices, shortened, work
from gatekit_bench.weights import decoded, fill
from gatekit_wan22.dequantise import dequantise
from gatekit_wan22.sizes import PUBLISHED, expected_shapes

SMALL = shortened(SIZES["tinywan"], 2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_random_blocks_are_of_the_asked_size(name):
    data = random_blocks(name, 256 * 400, 0.02, "cpu", seed=1)
    weights = dequantise(data, name)
    assert weights.isfinite().all()
    assert float(weights.std()) == pytest.approx(0.02, rel=0.05)
    assert abs(float(weights.mean())) < 0.004
    other = random_blocks(name, 256 * 400, 0.02, "cpu", seed=2)
    assert not torch.equal(data, other)


def test_the_sizes_are_those_of_the_published_models():
    assert {SIZES[name] for name in ("a14b", "ti2v5b", "wan1.3b")} <= set(PUBLISHED)
    shapes = expected_shapes(SIZES["a14b"])
    inside = sum(s[0] * s[1] for n, s in shapes.items() if is_matrix(n))
    assert matrices(SIZES["a14b"]) == inside
    assert sum(is_matrix(name) for name in shapes) == 400


def test_the_small_size_is_the_small_models():
    from pathlib import Path

    import gatekit_tinywan
    from gatekit_wan22 import read_header, read_sizes

    folder = Path(gatekit_tinywan.__file__).parent / "weights"
    header = read_header(folder / "tinywan_high_fp16.safetensors", role="transformer")
    assert read_sizes(header) == SIZES["tinywan"]


@pytest.mark.parametrize("tokens", [*KNOWN, 16, 64, 4096, 1000])
def test_a_latent_has_the_tokens_asked_for(tokens):
    frames, height, width = latent_of(tokens)
    assert frames * (height // 2) * (width // 2) == tokens
    assert height % 2 == width % 2 == 0


def test_work_counts_products():
    # One block by hand: 8 squares of which two see the text, two of the feed-forward.
    sizes = shortened(SIZES["a14b"], 1)
    d, f, n, t = 5120, 13824, 510, 512
    todo = work(sizes, n)
    assert todo.matrices == 2 * (6 * d * d * n + 2 * d * d * t + 2 * d * f * n)
    assert todo.attention == 4 * d * n * (n + t)


def opened(folder, name, fill_file=None, **more):
    given = {} if fill_file is None else {"fill": fill_file}
    if name == "plain":
        shapes = expected_shapes(SMALL)
        file = write_safetensors(folder / "plain.safetensors", shapes, **given)
        spec = {"use": "safetensors", "file": str(file)}
    else:
        file = write_gguf(folder / f"{name}.gguf", SMALL, name, **given)
        spec = {"use": "gguf", "file": str(file), "keep": "never"}
    return file, gatekit.open_variant(spec, family="wan22", device="cpu", compute="fp32")


def tensors(module):
    yield from module.named_parameters()
    for name, layer in module.named_modules():
        if hasattr(layer, "stored"):
            yield f"{name}.stored", layer.stored


def test_a_file_without_weights_takes_no_space_and_is_filled_when_loaded(tmp_path):
    file, variant = opened(tmp_path, "Q2_K")
    assert file.stat().st_blocks * 512 < file.stat().st_size / 2
    fill(variant.module)
    for name, tensor in tensors(variant.module):
        assert (tensor != 0).float().mean() > 0.9, name
        assert tensor.float().isfinite().all(), name
    types = {m.type_name for m in variant.module.modules() if hasattr(m, "stored")}
    assert types == {"Q2_K", "Q3_K"} == {mix("Q2_K", n) for n in ("a.v.weight", "a.q.weight")}


def test_the_others_take_the_weights_of_the_first(tmp_path):
    (_, first), (_, plain) = opened(tmp_path, "Q2_K"), opened(tmp_path, "plain")
    fill(first.module)
    fill(plain.module, first.module)
    for name, layer in plain.module.named_modules():
        theirs = first.module.get_submodule(name)
        if hasattr(layer, "weight") and layer.weight is not None:
            assert torch.equal(decoded(layer), decoded(theirs)), name
    assert torch.equal(
        plain.module.blocks[1].ffn.net[2].bias, first.module.blocks[1].ffn.net[2].bias
    )


def test_a_layer_of_fp8_takes_weights_too():
    from gatekit_wan22.fp8 import new_fp8_linear

    source = torch.nn.ModuleList([torch.nn.Linear(64, 32)])
    zeros = torch.zeros(32, 64, dtype=torch.float8_e4m3fn)
    target = torch.nn.ModuleList([new_fp8_linear(zeros, torch.ones(32, 1), torch.zeros(32))])
    fill(target, source)
    wanted = source[0].weight
    error = (decoded(target[0]).float() - wanted).norm() / wanted.norm()
    assert 0 < error < 0.04
    assert torch.equal(target[0].bias, source[0].bias)
    fill(target)
    assert (decoded(target[0]) != 0).float().mean() > 0.9


@pytest.mark.parametrize("name", ["Q5_K", "plain"])
def test_a_file_with_weights_has_no_zeros(tmp_path, name):
    file, variant = opened(tmp_path, name, Random("cpu"))
    assert file.stat().st_blocks * 512 > file.stat().st_size * 0.9
    for key, tensor in tensors(variant.module):
        assert (tensor != 0).float().mean() > 0.9, key
        assert tensor.float().isfinite().all(), key
