"""A unigram tokenizer, whichever file its vocabulary came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

END = "</s>"
UNKNOWN, UNUSED = 2, 5  # piece types of SentencePiece, of those that matter here


@dataclass(frozen=True)
class Unigram:
    """What a SentencePiece unigram model is made of.

    Attributes:
        pieces: Text of each token, in the order of their ids.
        scores: Log probability of each.
        types: SentencePiece's type of each: 1 normal, 2 unknown, 3 control, 4 user's,
            5 unused, 6 byte.
        byte_fallback: Characters outside the vocabulary become their UTF-8 bytes.
        charmap: Compiled map of characters that are normalised first; may be empty.
        prefix: Put a space before the text.
        collapse: Make runs of spaces one.
        end: Id of the token that ends a text; None is that of ``</s>``.
    """

    pieces: Sequence[str]
    scores: Sequence[float]
    types: Sequence[int]
    byte_fallback: bool = False
    charmap: bytes = b""
    prefix: bool = True
    collapse: bool = True
    end: int | None = None

    def end_id(self) -> int:
        """Id of the token that ends a text. Raises ValueError where there is none."""
        if self.end is None and END not in self.pieces:
            raise ValueError(f"no piece '{END}'")
        end = self.pieces.index(END) if self.end is None else self.end
        if not 0 <= end < len(self.pieces):
            raise ValueError(f"the end token {end} is none of {len(self.pieces)}")
        return end


def build_tokenizer(model: Unigram) -> Any:
    """A ``tokenizers.Tokenizer`` that splits text as SentencePiece does, and ends it.

    Raises:
        ValueError: The parts do not fit together.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    if not len(model.pieces) == len(model.scores) == len(model.types):
        raise ValueError(
            f"{len(model.pieces)} pieces, {len(model.scores)} scores, {len(model.types)} types"
        )
    if UNKNOWN not in model.types:
        raise ValueError("no piece for what is unknown")
    end = model.end_id()
    used = [score for score, kind in zip(model.scores, model.types, strict=True) if kind != UNUSED]
    lowest = min(used)
    # An unused piece keeps its id, under a name that no text has: a text holds no NUL.
    vocabulary = [
        (f"\0{i}", lowest) if kind == UNUSED else (piece, float(score))
        for i, (piece, score, kind) in enumerate(
            zip(model.pieces, model.scores, model.types, strict=True)
        )
    ]
    unknown = model.types.index(UNKNOWN)
    tokenizer = Tokenizer(models.Unigram(vocabulary, unknown, model.byte_fallback))
    steps: list[Any] = [normalizers.Precompiled(model.charmap)] if model.charmap else []
    if model.collapse:
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement="▁", prepend_scheme="always" if model.prefix else "never"
    )
    text = vocabulary[end][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {text}", special_tokens=[(text, end)]
    )
    return tokenizer
