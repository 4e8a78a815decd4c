"""A UMT5 encoder in a GGUF file: its names, its quantised tensors, and its tokenizer."""

import io
import subprocess
import sys
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import sentencepiece
import torch
from gguf.constants import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gatekit import WeightsError
from gatekit_wan22 import layout_umt5, load_text_encoder, read_header
from gatekit_wan22.fits import check_text_encoder
from gatekit_wan22.gguf_tokenizer import read_gguf_tokenizer
from gatekit_wan22.sentencepiece_file import read_sentencepiece
from gatekit_wan22.unigram import build_tokenizer

DIM, FFN, LAYERS, HEADS, EXTRA = 256, 512, 3, 4, 20
TEXTS = [
    "A red cat walks over the wall at night.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "色调艳丽，过曝，静态，细节模糊不清",
    "日本語のテキスト、と絵文字 🦊🎬 in one line",
    "naïve café — “quoted” … 50 % ﬁne ① ㎡",
    "line one\nline two\tand a tab",
    "Ünïcödé Привет мир שלום नमस्ते",
    "☃︎ 𝔘𝔫𝔦 👩‍👩‍👧",
    "x" * 40,
    "",
]


def trained(rule, byte_fallback, prefix=True):
    """A real SentencePiece unigram model, made by its own trainer."""
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:7] * 40),
        model_writer=out,
        vocab_size=620 if byte_fallback else 360,
        model_type="unigram",
        byte_fallback=byte_fallback,
        normalization_rule_name=rule,
        add_dummy_prefix=prefix,
        character_coverage=0.98,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return out.getvalue()


def write_gguf(path, model, state=None, kinds=None, tools=None, **changes):
    """As llama.cpp's converter writes it; ``changes`` overwrite keys of the tokenizer."""
    from sentencepiece import SentencePieceProcessor

    pieces = SentencePieceProcessor(model_proto=model)
    normaliser = read_sentencepiece(model)
    tokens, scores, types = [], [], []
    for i in range(len(pieces)):
        tokens.append(pieces.id_to_piece(i).encode())
        scores.append(pieces.get_score(i))
        kind = 2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 1
        types.append(5 if pieces.is_unused(i) else 6 if pieces.is_byte(i) else kind)
    for i in range(EXTRA):  # the embedding has more rows than the vocabulary
        tokens.append(f"[PAD{i}]".encode())
        scores.append(-1000.0)
        types.append(5)
    writer = gguf.GGUFWriter(path, "t5encoder")
    if "tokens" not in changes or changes["tokens"] is not None:
        writer.add_tokenizer_model(changes.get("kind", "t5"))
        writer.add_tokenizer_pre("default")
        writer.add_token_list(changes.get("tokens", tokens))
        if changes.get("scores", scores) is not None:
            writer.add_token_scores(changes.get("scores", scores))
        writer.add_token_types(types)
        writer.add_add_space_prefix(normaliser.prefix)
        writer.add_remove_extra_whitespaces(normaliser.collapse)
        writer.add_eos_token_id(changes.get("eos", 1))
        writer.add_pad_token_id(0)
        if normaliser.charmap:
            writer.add_precompiled_charsmap(normaliser.charmap)
    for name, tensor in layout_umt5.diffusers_to_gguf(state or {}).items():
        array = tensor.float().numpy()
        kind = GGMLQuantizationType[kinds(name) if kinds else "F32"]
        if kind.name == "F16":
            writer.add_tensor(name, array.astype(np.float16))
        elif kind.name == "F32":
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, tools.ggml_quantise(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def model():
    return trained("identity", byte_fallback=True)


@pytest.fixture(scope="module")
def state(model):
    """A UMT5 encoder by transformers' names, random, with a row for every token and more."""
    rows = sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size() + EXTRA
    from gatekit_wan22.sizes_umt5 import UMT5Sizes, umt5_shapes

    shapes = umt5_shapes(UMT5Sizes(rows, DIM, FFN, LAYERS, HEADS, DIM // HEADS, 32))
    generator = torch.Generator().manual_seed(3)
    return {
        n: torch.randn(s, generator=generator) * (s[-1] ** -0.5 if len(s) == 2 else 0.2)
        + (len(s) == 1)
        for n, s in shapes.items()
    }


def quantised(kind):
    """Which tensors public files quantise: all matrices; not norms, nor the position bias."""
    return lambda name: "F32" if "norm" in name else "F16" if "rel_b" in name else kind


def test_names_are_those_of_gguf_py():
    """llama.cpp's own table, from the layout of transformers."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5ENCODER, 24)
    names = ["shared.weight", "encoder.final_layer_norm.weight"]
    names += [
        f"encoder.block.{n}.layer.{half}.{part}.weight"
        for n in (0, 23)
        for half, parts in (
            (0, ("layer_norm", *(f"SelfAttention.{m}" for m in "qkvo"))),
            (0, ("SelfAttention.relative_attention_bias",)),
            (1, ("layer_norm", *(f"DenseReluDense.{m}" for m in ("wi_0", "wi_1", "wo")))),
        )
        for part in parts
    ]
    ours = layout_umt5.diffusers_to_gguf({n: n for n in names})
    assert {v: k for k, v in ours.items()} == {
        n: table.get_name(n, try_suffixes=(".weight",)) for n in names
    }
    assert layout_umt5.gguf_to_diffusers(ours) == {n: n for n in names}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "Q6_K", "Q2_K", "F16"])
def test_embeddings_of_blocks(kind, model, state, tools, tmp_path):
    """The encoder of the values that gguf-py decodes, to the bit."""
    path = write_gguf(tmp_path / "umt5.gguf", model, state, quantised(kind), tools)
    reader = gguf.GGUFReader(path)
    decoded = {
        t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy())
        for t in reader.tensors
    }
    decoded = layout_umt5.gguf_to_diffusers(decoded)
    assert decoded.keys() == state.keys()
    save_file(layout_umt5.diffusers_to_official(decoded), tmp_path / "plain.safetensors")
    ids = torch.randint(0, len(decoded["shared.weight"]), (2, 30))
    mask = torch.ones(2, 30)
    mask[1, 20:] = 0
    for precision in ("fp32", "bf16"):
        blocks = load_text_encoder(path, precision=precision, keep="never")
        plain = load_text_encoder(tmp_path / "plain.safetensors", precision=precision)
        assert torch.equal(blocks.embed_ids(ids, mask), plain.embed_ids(ids, mask))


def test_only_rows_that_are_looked_up_are_decoded(model, state, tools, tmp_path, monkeypatch):
    from gatekit_wan22 import mapped

    path = write_gguf(tmp_path / "umt5.gguf", model, state, quantised("Q8_0"), tools)
    found = load_text_encoder(path)
    read, largest = mapped.MappedFile.read, 0

    def watch(self, info, *args, **kwargs):
        nonlocal largest
        largest = max(largest, info.count) if info.name == "token_embd.weight" else largest
        return read(self, info, *args, **kwargs)

    monkeypatch.setattr(mapped.MappedFile, "read", watch)
    found.embed(["a red cat"])
    assert largest == DIM


def test_prompts_need_nothing_else(model, state, tools, tmp_path):
    """Embeddings by the tokenizer in the file, of SentencePiece's own ids."""
    path = write_gguf(tmp_path / "umt5.gguf", model, state, quantised("Q8_0"), tools)
    found = load_text_encoder(path)
    ids = [*sentencepiece.SentencePieceProcessor(model_proto=model).encode("A red cat"), 1]
    out = found.embed(["A red  cat\n"])
    assert out.shape == (1, 512, DIM)
    assert torch.equal(out[:, : len(ids)], found.embed_ids(torch.tensor([ids])))
    assert (out[:, len(ids) :] == 0).all()


KINDS = {
    "umt5": ("identity", True, True),
    "nfkc": ("nmt_nfkc", True, True),
    "unknown": ("identity", False, True),
    "no prefix": ("identity", True, False),
}


@pytest.fixture(scope="module", params=KINDS, ids=list(KINDS))
def tokenizers(request, tmp_path_factory):
    model = trained(*KINDS[request.param])
    path = write_gguf(tmp_path_factory.mktemp("t") / "t.gguf", model)
    return SimpleNamespace(
        theirs=sentencepiece.SentencePieceProcessor(model_proto=model),
        file=build_tokenizer(read_sentencepiece(model)),
        metadata=build_tokenizer(read_gguf_tokenizer(path)),
    )


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_sentencepiece(text, tokenizers):
    text = " ".join(text.split())
    wanted = [*tokenizers.theirs.encode(text), 1]
    assert tokenizers.metadata.encode(text).ids == wanted
    assert tokenizers.file.encode(text).ids == wanted


@settings(max_examples=60)
@given(words=st.lists(st.text("aber cdkä色，🦊é☃x0.", min_size=1), max_size=8))
def test_tokens_of_any_text(words, tokenizers):
    text = " ".join(" ".join(words).split())
    ids = tokenizers.metadata.encode(text).ids
    score = tokenizers.theirs.get_score
    wanted = tokenizers.theirs.encode(text)
    if ids != [*wanted, 1]:  # two ways of equal score may differ
        ours = sum(score(i) for i in ids[:-1])
        assert ours == pytest.approx(sum(score(i) for i in wanted), abs=1e-3)


def test_padding_pieces_are_no_text(model, tmp_path):
    metadata = build_tokenizer(read_gguf_tokenizer(write_gguf(tmp_path / "t.gguf", model)))
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    assert metadata.encode("[PAD3]").ids == [*theirs.encode("[PAD3]"), 1]
    assert metadata.get_vocab_size() == len(theirs) + EXTRA


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"kind": "gpt2"}, "kind 'gpt2', not 't5'"),
        ({"tokens": [b"a", b"b"]}, "2 pieces"),
        ({"scores": [0, 1]}, "scores"),
        ({"eos": 10**6}, "end token 1000000"),
    ],
)
def test_tokenizers_that_do_not_fit(changes, match, model, state, tmp_path):
    path = write_gguf(tmp_path / "t.gguf", model, state, **changes)
    with pytest.raises(WeightsError, match=match):
        load_text_encoder(path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"kind": "gpt2"}, "kind 'gpt2', not 't5'"), ({"scores": None}, "'tokenizer.ggml.scores' is")],
)
def test_a_tokenizer_that_does_not_fit_is_told_at_plan_time(changes, match, model, state, tmp_path):
    check_text_encoder(write_gguf(tmp_path / "good.gguf", model, state), None)
    with pytest.raises(WeightsError, match=match):
        check_text_encoder(write_gguf(tmp_path / "t.gguf", model, state, **changes), None)


def test_a_file_without_tokenizer(model, state, tmp_path):
    path = write_gguf(tmp_path / "t.gguf", model, state, tokens=None)
    assert load_text_encoder(path).tokenize is None


def test_a_folder_of_one_file_has_its_tokenizer(model, state, tmp_path):
    (tmp_path / "umt5").mkdir()
    path = write_gguf(tmp_path / "umt5" / "t.gguf", model, state)
    found, wanted = (load_text_encoder(p) for p in (path.parent, path))
    assert found.tokenize is not None and wanted.tokenize is not None
    assert found.tokenize("a bed") == wanted.tokenize("a bed")


def test_planning_skips_the_vocabulary(model, state, tmp_path):
    header = read_header(write_gguf(tmp_path / "t.gguf", model, state))
    assert header.metadata["tokenizer.ggml.model"] == "t5"
    assert header.metadata["tokenizer.ggml.tokens"] is None


@pytest.mark.parametrize("buffer", [8, 9, 64, 1 << 20])
def test_strings_are_passed_over_in_any_buffer(buffer, model, state, tmp_path, monkeypatch):
    path = write_gguf(tmp_path / "t.gguf", model, state)
    wanted = read_header(path)
    monkeypatch.setattr("gatekit_wan22.gguf_file._BUFFER", buffer)
    assert read_header(path) == wanted


@pytest.mark.parametrize("damage", ["length", "cut"])
def test_a_vocabulary_that_lies(damage, model, tmp_path):
    content = write_gguf(tmp_path / "t.gguf", model).read_bytes()
    at = content.index("▁".encode()) - 8  # the length of the first piece that begins a word
    if damage == "length":
        content = content[:at] + (1 << 63).to_bytes(8, "little") + content[at + 8 :]
    else:
        content = content[: at + 4]
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="damaged GGUF"):
        read_header(path)


def test_inspect(model, state, tools, tmp_path, capsys):
    from gatekit.cli import call

    path = write_gguf(tmp_path / "umt5-Q8_0.gguf", model, state, quantised("Q8_0"), tools)
    assert call(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert f"model: UMT5 encoder, {LAYERS} layers x {DIM}" in shown
    assert "storage: Q8_0, 8." in shown and "tokenizer: in the file" in shown
    assert "  text_encoder: {file: umt5-Q8_0.gguf}" in shown
    assert "opens as: text_encoder of family wan22\n" in shown  # of another width than tinywan's
    save_file(state, tmp_path / "bare.safetensors")
    assert call(["inspect", str(tmp_path / "bare.safetensors")]) == 0
    assert "no tokenizer in it nor beside it: add 'tokenizer: FILE'" in capsys.readouterr().out


def test_planning_imports_nothing_heavy(model, state, tools, tmp_path):
    path = write_gguf(tmp_path / "umt5.gguf", model, state, quantised("Q8_0"), tools)
    look = """if True:
        import sys
        from pathlib import Path
        from gatekit_wan22.sizes_parts import component_facts
        assert list(component_facts(Path(sys.argv[1]))) == ["text_encoder"]
        heavy = {"torch", "transformers", "tokenizers", "ftfy", "diffusers"} & set(sys.modules)
        assert not heavy, heavy
    """
    done = subprocess.run([sys.executable, "-c", look, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
