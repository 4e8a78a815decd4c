"""The file of a SentencePiece unigram model, read without the sentencepiece package.

The file is a protocol buffer. Of its fields these matter: pieces (1: text 1, score 2,
type 3), trainer settings (2: byte fallback 35), normaliser (3:
compiled character map 2, prefix space 3, collapse of white space 4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from .unigram import Unigram


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of every field; values are int, bytes or float."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
        elif wire == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("truncated")
            value, at = data[at : at + length], at + length
        elif wire == 5:
            (value,), at = struct.unpack_from("<f", data, at), at + 4
        elif wire == 1:
            (value,), at = struct.unpack_from("<d", data, at), at + 8
        else:
            raise ValueError(f"wire type {wire}")
        yield number, value


def read_sentencepiece(content: bytes) -> Unigram:
    """The model in the bytes of a ``spiece.model``.

    Raises:
        ValueError: The bytes are no SentencePiece unigram model.
    """
    pieces: list[str] = []
    scores: list[float] = []
    types: list[int] = []
    byte_fallback, charmap, prefix, collapse = False, b"", True, True
    for number, value in fields(content):
        if number == 1:
            piece = dict(fields(value))
            pieces.append(piece[1].decode("utf-8"))
            scores.append(float(piece.get(2, 0.0)))
            types.append(int(piece.get(3, 1)))
        elif number == 2:
            trainer = dict(fields(value))
            if trainer.get(3, 1) != 1:
                raise ValueError("not a unigram model")
            byte_fallback = bool(trainer.get(35, 0))
        elif number == 3:
            normaliser = dict(fields(value))
            charmap = normaliser.get(2, b"")
            prefix = bool(normaliser.get(3, 1))
            collapse = bool(normaliser.get(4, 1))
    if not pieces:
        raise ValueError("no pieces")
    return Unigram(pieces, scores, types, byte_fallback, charmap, prefix, collapse)
