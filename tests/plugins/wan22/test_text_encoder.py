"""UMT5 against transformers used directly, and its tokenizers."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gatekit import InputError, WeightsError
from gatekit_wan22 import layout_umt5, load_text_encoder
from gatekit_wan22.fits import check_text_encoder
from gatekit_wan22.tokenizer import clean

WORDS = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁red", "▁cat", "s", "▁run"]


def tokenizer_json():
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.Unigram([(w, -float(i)) for i, w in enumerate(WORDS)], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer.to_str()


def sentencepiece_model(words=WORDS):
    """A SentencePiece model written by hand, field by field."""

    def field(number, wire, payload):
        return bytes([number << 3 | wire]) + payload

    def message(number, payload):
        return field(number, 2, bytes([len(payload)]) + payload)

    out = b""
    for i, word in enumerate(words):
        kind = {"<unk>": 2, "<pad>": 3, "</s>": 3}.get(word, 1)
        piece = message(1, word.encode()) + field(2, 5, np.float32(-i).tobytes())
        out += message(1, piece + field(3, 0, bytes([kind])))
    out += message(2, field(3, 0, b"\x01"))  # unigram
    return out + message(3, field(3, 0, b"\x01") + field(4, 0, b"\x01"))


@pytest.fixture(scope="module")
def umt5(tmp_path_factory):
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=8, d_ff=24, num_layers=2, num_heads=3
    )
    model = UMT5EncoderModel(config).eval().requires_grad_(False)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) * 0.2)
    folder = tmp_path_factory.mktemp("umt5")
    official = layout_umt5.diffusers_to_official(model.state_dict())
    official = {n: p.clone() for n, p in official.items()}
    save_file(official, folder / "official.safetensors")
    theirs = {n: p.clone() for n, p in model.state_dict().items()}
    save_file(theirs, folder / "transformers.safetensors")
    extra = {"tokenizer_json": tokenizer_json(), "text_length": "12"}
    save_file(official, folder / "tiny.safetensors", metadata=extra)
    spiece = torch.frombuffer(bytearray(sentencepiece_model()), dtype=torch.uint8)
    save_file(official | {"spiece_model": spiece}, folder / "comfy.safetensors")
    return SimpleNamespace(model=model, folder=folder, official=official)


@pytest.mark.parametrize("name", ["official", "transformers", "tiny", "comfy"])
def test_embeddings_equal_transformers(name, umt5):
    found = load_text_encoder(umt5.folder / f"{name}.safetensors")
    ids = torch.tensor([[4, 5, 6, 7, 1], [8, 1, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    wanted = umt5.model(input_ids=ids, attention_mask=mask).last_hidden_state
    out = found.embed_ids(ids, mask)
    assert out.dtype == torch.float32
    assert (out[mask == 1] - wanted[mask == 1]).abs().max() < 1e-6
    assert (out[mask == 0] == 0).all()
    assert torch.equal(found.embed_ids(ids[:1]), found.embed_ids(ids[:1], mask[:1]))


def test_every_layer_has_its_own_position_bias(umt5, tmp_path):
    """The last layer's bias alone changes the result, and by no more than it should."""
    state = dict(umt5.official)
    ids = torch.tensor([[4, 5, 6, 7, 1]])
    before = load_text_encoder(umt5.folder / "official.safetensors").embed_ids(ids)
    state["blocks.1.pos_embedding.embedding.weight"] = umt5.official[
        "blocks.0.pos_embedding.embedding.weight"
    ].clone()
    save_file(state, tmp_path / "x.safetensors")
    after = load_text_encoder(tmp_path / "x.safetensors").embed_ids(ids)
    assert (after - before).norm() > 1e-2 * before.norm()


@pytest.mark.parametrize(("name", "length"), [("tiny", 12), ("comfy", 512)])
def test_prompts(name, length, umt5):
    """Both forms of the tokenizer: cleaned, ended, trimmed, zero-padded."""
    found = load_text_encoder(umt5.folder / f"{name}.safetensors")
    assert found.text_length == length
    out = found.embed(["  a red\n cats ", "a"])
    assert out.shape == (2, length, 32)
    assert torch.equal(out[0, :5], found.embed_ids(torch.tensor([[4, 5, 6, 7, 1]]))[0])
    assert (out[0, 5:] == 0).all() and (out[1, 2:] == 0).all()
    assert torch.equal(found.embed(["a"]), out[1:])


def test_named_tokenizer_wins(umt5, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer_json())
    (tmp_path / "spiece.model").write_bytes(sentencepiece_model())
    for tokenizer in (tmp_path / "tokenizer.json", tmp_path / "spiece.model", tmp_path):
        found = load_text_encoder(umt5.folder / "official.safetensors", tokenizer=tokenizer)
        assert found.tokenize("a red cat") == [4, 5, 6, 1]


def test_without_a_tokenizer(umt5):
    found = load_text_encoder(umt5.folder / "official.safetensors")
    with pytest.raises(WeightsError, match=r"no tokenizer.*text_encoder\.tokenizer"):
        found.embed(["a"])


@pytest.mark.parametrize("content", [b"", b"{}", b"{x", b"\xff" * 40, b"\x0a\x03abc"])
def test_broken_tokenizers(content, umt5, tmp_path):
    path = tmp_path / "tokenizer"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="tokenizer cannot be read"):
        load_text_encoder(umt5.folder / "official.safetensors", tokenizer=path)
    with pytest.raises(WeightsError, match="tokenizer cannot be read"):
        load_text_encoder(umt5.folder / "official.safetensors", tokenizer=tmp_path / "none")


BAD = {
    b"": "neither JSON nor",
    b"<!DOCTYPE html>": "neither JSON nor a SentencePiece model",
    b"version https://git-lfs": "neither JSON nor",
    tokenizer_json().encode()[:100]: "its JSON is cut short",
}


@pytest.mark.parametrize(("content", "told"), BAD.items(), ids=range(len(BAD)))
def test_a_plainly_bad_tokenizer_is_told_before_anything_is_loaded(content, told, umt5, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=told):
        check_text_encoder(umt5.folder / "official.safetensors", path)
    for good in (tokenizer_json().encode() + b"\n", sentencepiece_model()):
        path.write_bytes(good)
        check_text_encoder(umt5.folder / "official.safetensors", path)


@pytest.mark.parametrize(("content", "told"), BAD.items(), ids=range(len(BAD)))
@pytest.mark.parametrize("form", ["metadata", "tensor"])
def test_a_plainly_bad_tokenizer_in_the_encoders_file(form, content, told, umt5, tmp_path):
    path = tmp_path / "umt5.safetensors"
    if form == "metadata":
        save_file(umt5.official, path, {"tokenizer_json": content.decode()})
    else:
        held = torch.frombuffer(bytearray(content or b"x"), dtype=torch.uint8)
        save_file(umt5.official | {"spiece_model": held}, path)
    for use in (lambda: check_text_encoder(path, None), lambda: load_text_encoder(path)):
        with pytest.raises(WeightsError, match=told):
            use()


def test_a_large_tokenizer_in_the_encoders_file_is_not_read(umt5, monkeypatch):
    check_text_encoder(umt5.folder / "comfy.safetensors", None)
    monkeypatch.setattr("gatekit_wan22.tokenizer._LARGEST", 100)
    with pytest.raises(WeightsError, match=r"comfy\.safetensors: .* bytes; at most 100 are read"):
        check_text_encoder(umt5.folder / "comfy.safetensors", None)


def test_an_endless_tokenizer_is_not_read(umt5, tmp_path):
    path = tmp_path / "tokenizer.json"
    with path.open("wb") as stream:
        stream.write(b"{")
        stream.truncate(200 << 20)  # sparse
    for use in (
        lambda: check_text_encoder(umt5.folder / "official.safetensors", path),
        lambda: load_text_encoder(umt5.folder / "official.safetensors", tokenizer=path),
    ):
        with pytest.raises(WeightsError, match=r"209,715,200 bytes; at most 134,217,728"):
            use()


def test_tokenizer_that_ends_no_text(umt5, tmp_path):
    words = [w if w != "</s>" else "<end>" for w in WORDS]
    path = tmp_path / "spiece.model"
    path.write_bytes(sentencepiece_model(words))
    with pytest.raises(WeightsError, match="</s>"):
        load_text_encoder(umt5.folder / "official.safetensors", tokenizer=path)


def test_long_prompts_are_cut_and_said(umt5, caplog):
    found = load_text_encoder(umt5.folder / "tiny.safetensors")
    out = found.embed(["a " * 30])
    assert out.shape == (1, 12, 32) and (out[0, -1] != 0).any()
    assert "cut to 12" in caplog.text


@pytest.mark.parametrize(("precision", "within"), [("fp16", 4e-3), ("bf16", 3e-2)])
def test_precisions(precision, within, umt5):
    found = load_text_encoder(umt5.folder / "tiny.safetensors", precision=precision)
    exact = load_text_encoder(umt5.folder / "tiny.safetensors").embed(["a red cat"])
    out = found.embed(["a red cat"])
    assert out.dtype == torch.float32
    assert 0 < (out - exact).norm() < within * exact.norm()


def test_fp16_does_not_overflow(umt5, tmp_path):
    """Products of gate and value beyond fp16's 65504, as UMT5-XXL has them."""
    state = dict(umt5.official)
    for n in range(2):
        for name in ("ffn.gate.0", "ffn.fc1"):
            state[f"blocks.{n}.{name}.weight"] = state[f"blocks.{n}.{name}.weight"] * 300
    save_file(state, tmp_path / "x.safetensors")
    ids = torch.tensor([[4, 5, 6, 7, 1]])
    exact = load_text_encoder(tmp_path / "x.safetensors").embed_ids(ids)
    half = load_text_encoder(tmp_path / "x.safetensors", precision="fp16").embed_ids(ids)
    assert half.isfinite().all() and (half - exact).norm() < 5e-3 * exact.norm()


@pytest.mark.parametrize("keep", ["always", "never"])
def test_kept_or_decoded_again_is_the_same(keep, umt5):
    found = load_text_encoder(umt5.folder / "tiny.safetensors", precision="bf16", keep=keep)
    first = found.embed(["a red cat", "cats run"])
    assert torch.equal(found.embed(["a red cat", "cats run"]), first)


def test_bad_ids_and_metadata(umt5, tmp_path):
    found = load_text_encoder(umt5.folder / "official.safetensors")
    for ids in ([[99]], [[-1]], [1]):
        with pytest.raises(InputError, match="token ids"):
            found.embed_ids(torch.tensor(ids))
    save_file(umt5.official, tmp_path / "x.safetensors", metadata={"text_length": "many"})
    with pytest.raises(WeightsError, match="text_length"):
        load_text_encoder(tmp_path / "x.safetensors")


def test_missing_tensor(umt5, tmp_path):
    state = dict(umt5.official)
    state.pop("blocks.1.ffn.fc2.weight")
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="1 tensors are missing"):
        load_text_encoder(tmp_path / "x.safetensors")


def test_a_mask_of_another_shape(umt5):
    found = load_text_encoder(umt5.folder / "official.safetensors")
    with pytest.raises(InputError, match="same shape"):
        found.embed_ids(torch.tensor([[4, 1]]), torch.tensor([[1]]))


def test_t5_of_another_model(umt5, tmp_path):
    """Flux and SD3 keep their t5xxl in the same folder."""
    state = dict(umt5.official)
    state.pop("blocks.1.pos_embedding.embedding.weight")
    save_file(state, tmp_path / "t5xxl.safetensors")
    with pytest.raises(WeightsError, match=r"one position bias for all layers.*umt5_xxl"):
        load_text_encoder(tmp_path / "t5xxl.safetensors")


@pytest.mark.parametrize("place", ["tokenizer", "google/umt5-xxl", "../tokenizer"])
def test_tokenizer_beside_the_file(place, umt5, tmp_path):
    folder = tmp_path / "text_encoder"
    (folder / place).mkdir(parents=True)
    (folder / place / "spiece.model").write_bytes(sentencepiece_model())
    save_file(umt5.official, folder / "x.safetensors")
    assert load_text_encoder(folder / "x.safetensors").tokenize("a red cat") == [4, 5, 6, 1]


def test_whole_translation_models_serve_as_encoders(umt5, tmp_path):
    decoder = {"decoder.final_layer_norm.weight": torch.ones(32), "lm_head.weight": torch.ones(2)}
    save_file(umt5.official | decoder, tmp_path / "x.safetensors")
    ids = torch.tensor([[4, 5, 1]])
    found = load_text_encoder(tmp_path / "x.safetensors").embed_ids(ids)
    assert torch.equal(
        found, load_text_encoder(umt5.folder / "official.safetensors").embed_ids(ids)
    )


def test_cleaning():
    assert clean(" a &amp;amp; b\t\n c ") == "a & b c"
    # What ftfy does in Wan's own code: full width, curly quotes, ligatures, wrong decoding.
    assert clean("“色调”，ａ！ ﬁx cafÃ©") == '"色调",a! fix café'
    assert json.loads(tokenizer_json())["model"]["type"] == "Unigram"
