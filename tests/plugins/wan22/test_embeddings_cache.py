"""Prompt embeddings on disk: the same bits, no weights read, and nothing trusted that is broken."""

import logging
import os
import stat
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from gatekit import Components, ComponentSpec, Inputs, VideoSpec
from gatekit_wan22 import WanFamily, load_text_encoder, mapped, prompts
from gatekit_wan22.embeddings_cache import EmbeddingsCache
from gatekit_wan22.sizes_umt5 import UMT5Sizes, umt5_shapes

WORDS = ["<pad>", "</s>", "<unk>", "▁", "▁a", "▁red", "▁cat", "s"]
TEXTS = ("a red cat", "a cat")


def tokenizer(words=WORDS):
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.Unigram([(w, -float(i)) for i, w in enumerate(words)], 2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made.to_str()


@pytest.fixture
def umt5(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEKIT_CACHE", str(tmp_path / "cache"))
    shapes = umt5_shapes(UMT5Sizes(len(WORDS), 32, 24, 2, 4, 8, 32))
    generator = torch.Generator().manual_seed(0)
    state = {n: torch.randn(s, generator=generator) * 0.3 for n, s in shapes.items()}
    file = tmp_path / "umt5.safetensors"
    save_file(state, file, metadata={"tokenizer_json": tokenizer(), "text_length": "12"})
    return SimpleNamespace(file=file, state=state, cache=tmp_path / "cache" / "embeddings")


@pytest.fixture
def opened(monkeypatch):
    """Counts weight files that are opened."""
    count = SimpleNamespace(files=0)
    of = mapped.MappedFile._of

    def counted(self, path):
        count.files += 1
        return of(self, path)

    monkeypatch.setattr(mapped.MappedFile, "_of", counted)
    return count


def embed(umt5, texts=TEXTS, **changes):
    options = {"file": umt5.file, "precision": "fp32", "device": "cpu"} | changes
    return prompts.embed_prompts(texts, **options)


def test_same_bits_and_no_weights(umt5, opened, caplog):
    caplog.set_level(logging.INFO)
    first = embed(umt5)
    assert opened.files > 0 and not caplog.messages
    assert torch.equal(first, load_text_encoder(umt5.file).embed(TEXTS))
    opened.files = 0
    assert torch.equal(embed(umt5), first)
    assert opened.files == 0
    assert caplog.messages == ["text embeddings from the cache: 2 of 2"]


def test_only_what_is_missing_is_encoded(umt5, opened, caplog):
    caplog.set_level(logging.INFO)
    embed(umt5, TEXTS[:1])
    both = embed(umt5)
    assert "text embeddings from the cache: 1 of 2" in caplog.messages
    assert torch.equal(both, load_text_encoder(umt5.file).embed(TEXTS))
    assert torch.equal(embed(umt5, ("a cat", "a cat", "a red cat")), both[[1, 1, 0]])


def test_prompts_that_clean_to_the_same_share_an_entry(umt5, opened):
    first = embed(umt5)
    opened.files = 0
    assert torch.equal(embed(umt5, ("  a\nred cat ", "a &nbsp;cat")), first)
    assert opened.files == 0


@pytest.mark.parametrize("what", ["precision", "weights", "time", "tokenizer", "length", "version"])
def test_what_decides_makes_another_entry(what, umt5, opened, tmp_path, monkeypatch):
    embed(umt5)
    changes = {}
    if what == "precision":
        changes["precision"] = "bf16"
    elif what == "weights":
        umt5.state["shared.weight"][3] += 1
    elif what == "time":
        os.utime(umt5.file, ns=(1, 1))
    elif what == "tokenizer":
        changes["tokenizer"] = tmp_path / "tokenizer.json"
        changes["tokenizer"].write_text(tokenizer([*WORDS[:5], "▁cat", "▁red", "s"]))
    elif what == "version":
        monkeypatch.setattr("gatekit_wan22.embeddings_cache.__version__", "9.9")
    if what in ("weights", "length"):
        when = umt5.file.stat().st_mtime_ns
        length = "11" if what == "length" else "12"
        save_file(
            umt5.state, umt5.file, metadata={"tokenizer_json": tokenizer(), "text_length": length}
        )
        os.utime(umt5.file, ns=(when, when))
    opened.files = 0
    out = embed(umt5, **changes)
    assert opened.files > 0
    plain = {"precision": "fp32"} | changes
    assert torch.equal(out, load_text_encoder(umt5.file, **plain).embed(TEXTS))


def damage_data(content):
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[:-100], lambda c: b"", lambda c: b"x" * len(c), damage_data, lambda c: c + b"x"],
    ids=["truncated", "empty", "noise", "one bit", "longer"],
)
def test_broken_entries_are_told_and_encoded_again(damage, umt5, opened, caplog):
    first = embed(umt5)
    for entry in umt5.cache.iterdir():
        entry.write_bytes(damage(entry.read_bytes()))
    opened.files = 0
    assert torch.equal(embed(umt5), first)
    assert opened.files > 0
    assert "is of no use" in caplog.text and "encoded again" in caplog.text
    opened.files = 0
    assert torch.equal(embed(umt5), first)
    assert opened.files == 0


def test_another_tensor_in_the_place_of_an_entry(umt5):
    first = embed(umt5)
    for entry in umt5.cache.iterdir():
        save_file({"embedding": torch.zeros(1, 3, 32)}, entry)
    assert torch.equal(embed(umt5), first)


def test_off(umt5, opened, monkeypatch, tmp_path):
    monkeypatch.setenv("GATEKIT_CACHE", "off")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    embed(umt5)
    opened.files = 0
    embed(umt5)
    assert opened.files > 0
    assert not umt5.cache.exists() and not (tmp_path / "elsewhere").exists()


def test_a_folder_that_cannot_be_written_costs_no_result(umt5, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GATEKIT_CACHE", str(tmp_path / "file"))
    assert torch.equal(embed(umt5), load_text_encoder(umt5.file).embed(TEXTS))


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_nobody_else_can_read_it_and_no_prompt_is_in_it(umt5):
    embed(umt5)
    assert stat.S_IMODE(umt5.cache.stat().st_mode) == 0o700
    for entry in umt5.cache.iterdir():
        assert stat.S_IMODE(entry.stat().st_mode) == 0o600
        assert b"cat" not in entry.read_bytes() and "cat" not in entry.name


def test_the_least_recently_used_leave_first(tmp_path):
    entry = torch.randn(1, 10, 32)
    cache = EmbeddingsCache(tmp_path, limit=3 * 1500)  # 1,280 bytes of data and a header each
    for i, key in enumerate("abc"):
        cache.put(key, entry + i)
        os.utime(tmp_path / f"{key}.safetensors", ns=(i + 1, i + 1))
    assert cache.get("a", 32) is not None  # used now
    cache.put("d", entry)
    assert cache.get("b", 32) is None
    assert all(cache.get(key, 32) is not None for key in "acd")
    cache.limit = 1
    cache.put("e", entry)
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_a_family_uses_it_and_says_of_a_cut_prompt(umt5, opened, caplog):
    parts = Components(text_encoder=ComponentSpec(file=umt5.file))
    family, video = WanFamily(WanFamily.Params(), parts), VideoSpec(32, 32, 5, 16)
    inputs = Inputs(prompt="a " * 30, negative_prompt="a cat")
    first = family.encode(inputs, video, "cpu")
    assert "cut to 12" in caplog.text
    opened.files = 0
    caplog.clear()
    again = family.encode(inputs, video, "cpu")
    assert opened.files == 0 and "takes all 12 tokens" in caplog.text
    for name in ("positive", "negative"):
        assert torch.equal(first[name].text, again[name].text)
