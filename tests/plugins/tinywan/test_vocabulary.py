"""Words that the small model knows: the list in the docs, and what is said of others."""

import logging
import re
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from gatekit import Inputs, VideoSpec
from gatekit_tinywan import vocabulary
from gatekit_tinywan.family import TinyWanFamily
from gatekit_tinywan.world import HELD_OUT_SEED, VOCABULARY, sample_scenes
from gatekit_wan22 import WanFamily

PAGE = Path(__file__).parents[3] / "docs" / "small-model.md"


def test_words_as_the_tokenizer_sees_them():
    prompt = "A sleepy CAT, and a Large red circle. a cat; Cat on a “grey” background"
    assert vocabulary.unknown_words(prompt) == ["sleepy", "cat", "cat;", '"grey"']
    assert vocabulary.unknown_words("") == []


def test_every_caption_is_known():
    captions = sample_scenes(HELD_OUT_SEED, range(64), split="held_out").captions(vary=True)
    assert not any(vocabulary.unknown_words(caption) for caption in captions)


@pytest.fixture
def encoded(monkeypatch, caplog):
    """Encodes inputs without an encoder; gives what was logged."""
    monkeypatch.setattr(WanFamily, "encode", lambda self, inputs, video, device: {})
    family = object.__new__(TinyWanFamily)

    def encode(**inputs):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert family.encode(Inputs(**inputs), VideoSpec(96, 96, 25, 16), "cpu") == {}
        return [record.message for record in caplog.records]

    return encode


def test_one_warning_names_the_unknown_words_and_where_the_known_ones_are(encoded):
    assert encoded(prompt="a large red circle", negative_prompt=None) == []
    (said,) = encoded(prompt="a red cat chases a dog", negative_prompt="blurry cat")
    assert said == (
        "words that the small model does not know: cat, chases, dog, blurry; those it knows: "
        "python -m gatekit_tinywan.vocabulary"
    )
    (said,) = encoded(prompt=" ".join(f"word{i}" for i in range(11)))
    assert "word7 and 3 more;" in said and "word8" not in said


def test_the_list_of_the_docs_is_the_vocabulary(capsys):
    vocabulary.main()
    printed = capsys.readouterr().out.strip()
    assert tuple(printed.split()) == VOCABULARY
    assert re.findall(r"```\n(a and apart .*?)\n```", PAGE.read_text(), re.DOTALL) == [printed]
