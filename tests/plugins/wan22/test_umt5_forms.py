"""A UMT5 encoder in every form that people have it in: the embeddings of the same values."""

import gc
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from gatekit import Components, ComponentSpec
from gatekit_wan22 import WanFamily, layout_umt5, load_text_encoder, prompts
from gatekit_wan22.sizes_umt5 import UMT5Sizes, umt5_shapes

WORDS = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁red", "▁cat", *"abcdefghijklmnopqrstuvwxyz"]
TEXTS = ("a red cat", "a dog runs, a zebra too")


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.Unigram([(w, -float(i)) for i, w in enumerate(WORDS)], 2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made.to_str()


def random_state(sizes, dtype=torch.float16):
    generator = torch.Generator().manual_seed(0)
    return {
        n: (torch.randn(s, generator=generator) * s[-1] ** -0.5 + (len(s) == 1)).to(dtype)
        for n, s in umt5_shapes(sizes).items()
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """fp16 under transformers' names, the tokenizer in it."""
    state = random_state(UMT5Sizes(len(WORDS), 64, 96, 2, 4, 16, 32))
    path = tmp_path_factory.mktemp("plain") / "umt5.safetensors"
    save_file(state, path, {"tokenizer_json": tokenizer()})
    return SimpleNamespace(path=path, state=state)


def embed(path, **options):
    return load_text_encoder(path, **options).embed(TEXTS)


def test_official_download(plain, tmp_path):
    """A root with a .pth in bf16 under Wan's names, the tokenizer in google/umt5-xxl."""
    state = {n: t.bfloat16() for n, t in plain.state.items()}
    pth = tmp_path / "models_t5_umt5-xxl-enc-bf16.pth"
    torch.save(layout_umt5.diffusers_to_official(state), pth)
    beside = tmp_path / "google" / "umt5-xxl"
    beside.mkdir(parents=True)
    (beside / "tokenizer.json").write_text(tokenizer())
    save_file(state, tmp_path / "values.safetensors", {"tokenizer_json": tokenizer()})
    wanted = embed(tmp_path / "values.safetensors")
    assert torch.equal(embed(pth), wanted)
    assert torch.equal(embed(tmp_path), wanted)
    for dtype in ("bf16", "fp16"):
        values = embed(tmp_path / "values.safetensors", precision=dtype)
        assert torch.equal(embed(pth, precision=dtype), values)


def test_diffusers_download(plain, tmp_path):
    """``text_encoder/`` in shards with the embedding twice, ``tokenizer/`` beside it."""
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    state = dict(plain.state)
    state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()
    names, weight_map = list(state), {}
    for i in range(2):
        file = f"model-{i + 1:05d}-of-00002.safetensors"
        save_file({n: state[n] for n in names[i::2]}, folder / file)
        weight_map |= dict.fromkeys(names[i::2], file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text(tokenizer())
    wanted = embed(plain.path)
    for path in (tmp_path, folder, folder / "model-00001-of-00002.safetensors"):
        assert torch.equal(embed(path), wanted)
    family = WanFamily(
        WanFamily.Params(), Components(text_encoder=ComponentSpec(file=tmp_path, precision="bf16"))
    )
    found = prompts.embed_prompts(TEXTS, file=tmp_path, precision="bf16", device="cpu")
    assert torch.equal(found, family.open_text_encoder("cpu").embed(TEXTS))


@pytest.mark.parametrize("scaled", [None, "tensor", "row"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_fp8(scaled, dtype, plain, tmp_path):
    """Plain fp8, a scale a tensor as in fp8_scaled, a scale a row; the embedding too."""
    stored, values = {}, {}
    for name, tensor in plain.state.items():
        if tensor.ndim < 2 or "relative" in name:
            stored[name] = values[name] = tensor
            continue
        most = tensor.float().abs()
        most = most.amax(1) if scaled == "row" else most.max()
        scale = most / torch.finfo(dtype).max if scaled else torch.ones(())
        stored[name] = (tensor.float() / scale.view(-1, 1)).to(dtype)
        values[name] = stored[name].float() * scale.view(-1, 1)
        if scaled:
            stored[name.replace(".weight", ".scale_weight")] = scale
    if scaled:
        stored["scaled_fp8"] = torch.zeros(2, dtype=dtype)
    for name, state in (("stored", stored), ("values", values)):
        save_file(state, tmp_path / name, {"tokenizer_json": tokenizer()})
    for precision in ("fp32", "bf16"):
        found = embed(tmp_path / "stored", precision=precision, keep="never")
        assert torch.equal(found, embed(tmp_path / "values", precision=precision))


LAYERS = 6
LAYER = 4 * (4 * 1024**2 + 3 * 1024 * 2048)
"""Bytes of one layer of the large encoder in fp32."""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """65 million weights in fp16: 260 MB in fp32, of which the largest matrix is 8."""
    sizes = UMT5Sizes(3000, 1024, 2048, LAYERS, 8, 128, 32)
    path = tmp_path_factory.mktemp("large") / "umt5.safetensors"
    save_file(random_state(sizes), path, {"tokenizer_json": tokenizer()})
    return path


def test_one_matrix_is_held_and_then_none(large, tools):
    """Encoding in fp32 from fp16: far less than the weights, and given back."""

    def run(texts):
        prompts.embed_prompts(texts, file=large, precision="fp32", device="cpu")

    run(("a cat",))  # imports, allocator
    gc.collect()
    before = tools.private_bytes()
    rise = tools.rise_of(lambda: run(TEXTS))
    matrix = 4 * 1024 * 2048
    assert 4 * matrix < LAYER
    assert rise < 2 * LAYER < 0.4 * LAYERS * LAYER  # a matrix, activations, an allocator
    assert tools.private_bytes() - before < matrix


def test_kept_weights_are_held(large, tools):
    """The measure itself: ``always`` shows what the test above would miss."""
    encoder = load_text_encoder(large, keep="always")
    rise = tools.rise_of(lambda: encoder.embed(TEXTS))
    assert rise > 0.9 * LAYERS * LAYER
