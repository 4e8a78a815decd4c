"""The tokenizer that a GGUF file carries in its metadata, under ``tokenizer.ggml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .gguf_file import read_gguf_values
from .header import Header
from .unigram import Unigram

PREFIX = "tokenizer.ggml."
BYTE = 6


def has_tokenizer(header: Header) -> bool:
    """Whether the header of a GGUF says that there is one."""
    return PREFIX + "model" in header.metadata


def check_gguf_tokenizer(header: Header) -> None:
    """What the header of a GGUF tells of its tokenizer, long lists unread.

    Raises:
        ValueError: It is of another kind, or incomplete.
    """
    _check_kind(header.metadata.get(PREFIX + "model"))
    for key in ("tokens", "token_type", "scores"):
        if PREFIX + key not in header.metadata:
            raise _malformed(key)


def _check_kind(kind: object) -> None:
    if kind != "t5":
        raise ValueError(f"it is of the kind '{str(kind)[:40]}', not 't5'")


def read_gguf_tokenizer(path: Path) -> Unigram:
    """The unigram model in a file's metadata.

    Raises:
        ValueError: It is of another kind, or incomplete.
    """
    values = read_gguf_values(path, PREFIX)
    _check_kind(values.get("model"))
    pieces = _list(values, "tokens", str)
    types = _list(values, "token_type", int)
    charmap = values.get("precompiled_charsmap") or []
    end = values.get("eos_token_id")
    return Unigram(
        pieces=pieces,
        scores=_list(values, "scores", float),
        types=types,
        byte_fallback=BYTE in types,
        charmap=bytes(int(byte) & 0xFF for byte in charmap),  # some writers store int8
        prefix=bool(values.get("add_space_prefix", True)),
        collapse=bool(values.get("remove_extra_whitespaces", True)),
        end=end if isinstance(end, int) else None,
    )


def _list(values: dict[str, Any], key: str, kind: type) -> list[Any]:
    found = values.get(key)
    if not isinstance(found, list) or not all(isinstance(item, kind) for item in found):
        raise _malformed(key)
    return found


def _malformed(key: str) -> ValueError:
    return ValueError(f"'{PREFIX}{key}' is missing or malformed")
