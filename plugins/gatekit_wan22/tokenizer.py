"""UMT5's tokenizer, from whichever form a user has it in."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit import WeightsError

from .header import Header

if TYPE_CHECKING:
    from .mapped import MappedFile

Tokenize = Callable[[str], list[int]]
END = "</s>"


def clean(text: str) -> str:
    """Undo HTML escapes and collapse white space, as Wan's own code does to prompts."""
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip()


def _bad(where: str, error: object) -> WeightsError:
    return WeightsError(
        f"the tokenizer cannot be read: {str(error)[:200]}",
        where=where,
        remedy="give the tokenizer.json or spiece.model of UMT5",
    )


def _wrap(tokenizer: Any, where: str) -> Tokenize:
    """A function text -> ids that ends with the end-of-text token."""
    end = tokenizer.token_to_id(END)
    if end is None:
        raise _bad(where, f"it has no token '{END}'")

    def tokenize(text: str) -> list[int]:
        ids = list(tokenizer.encode(clean(text)).ids)
        return ids if ids[-1:] == [end] else [*ids, end]

    return tokenize


def from_json(content: str, where: str) -> Tokenize:
    """From the text of a ``tokenizer.json``."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # the library raises bare Exception
        raise _bad(where, error) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _wrap(tokenizer, where)


def from_sentencepiece(content: bytes, where: str) -> Tokenize:
    """From the bytes of a ``spiece.model``."""
    from .sentencepiece_file import build_tokenizer

    try:
        tokenizer = build_tokenizer(content)
    except Exception as error:  # the library raises bare Exception
        raise _bad(where, error) from error
    return _wrap(tokenizer, where)


def find_tokenizer(header: Header, mapped: MappedFile, file: Path | None) -> Tokenize | None:
    """The tokenizer of a text encoder: the named file, else what its own file carries.

    Raises:
        WeightsError: It cannot be read.
    """
    if file is not None:
        where = str(file)
        if file.is_dir():
            inside = [p for n in ("tokenizer.json", "spiece.model") if (p := file / n).is_file()]
            file = inside[0] if inside else file
        try:
            content = file.read_bytes()
        except OSError as error:
            raise _bad(where, error.strerror or error) from error
        if content[:1] == b"{":
            return from_json(content.decode("utf-8", "replace"), where)
        return from_sentencepiece(content, where)
    where = str(header.path)
    if "tokenizer_json" in header.metadata:
        return from_json(str(header.metadata["tokenizer_json"]), where)
    if "spiece_model" in header.tensors:
        raw = mapped.raw(header.tensors["spiece_model"]).numpy().tobytes()
        return from_sentencepiece(raw, where)
    return None
