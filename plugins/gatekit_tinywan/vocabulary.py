"""The small model's tokenizer: one token a word of the world's captions.

``python -m gatekit_tinywan.vocabulary`` prints the words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit_tinywan.world import VOCABULARY

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, EOS, UNKNOWN = "<pad>", "</s>", "<unk>"
TEXT_LENGTH = 64


def build_tokenizer() -> Tokenizer:
    """A word-level tokenizer: lower case, punctuation apart, ``</s>`` at the end (as T5)."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = [PAD, EOS, UNKNOWN, *VOCABULARY]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNKNOWN)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(",", ""), normalizers.Replace(".", "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, words.index(EOS))]
    )
    return tokenizer


def encode_ids(texts: list[str], length: int = TEXT_LENGTH) -> tuple[list[list[int]], list[int]]:
    """Token ids padded with 0 to ``length``, and how many of each row are real."""
    encoded = [e.ids[:length] for e in build_tokenizer().encode_batch(texts)]
    return [ids + [0] * (length - len(ids)) for ids in encoded], [len(ids) for ids in encoded]


def unknown_words(text: str) -> list[str]:
    """The words of a prompt that are none of the vocabulary, in order, each once."""
    from gatekit_wan22.tokenizer import clean

    tokenizer = build_tokenizer()
    unknown = tokenizer.token_to_id(UNKNOWN)
    text = clean(text)
    encoded = tokenizer.encode(text, add_special_tokens=False)
    spans = zip(encoded.ids, encoded.offsets, strict=True)
    found = (text[start:end].strip(",.").lower() for id_, (start, end) in spans if id_ == unknown)
    return list(dict.fromkeys(word for word in found if word))


def main() -> None:
    """Print the words, in lines that fit a terminal."""
    import textwrap

    print(textwrap.fill(" ".join(VOCABULARY), 80))


if __name__ == "__main__":
    main()
