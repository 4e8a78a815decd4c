"""UMT5's tokenizer, from whichever form a user has it in."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gatekit import WeightsError

from .header import Header
from .unigram import END, Unigram, build_tokenizer

_LARGEST = 128 << 20  # bytes of a tokenizer's file; UMT5's tokenizer.json has 17 MB
Tokenize = Callable[[str], list[int]]
NAMES = ("tokenizer.json", "spiece.model")
# Beside the encoder's file: diffusers' folders, and Wan's own download.
BESIDE = ("tokenizer", "../tokenizer", "google/umt5-xxl")


def clean(text: str) -> str:
    """What Wan's own code does to prompts before they are split.

    Broken Unicode is repaired and typographic variants made plain (curly quotes, full-width
    letters and punctuation), HTML escapes are undone, white space collapses. UMT5's
    vocabulary distinguishes all of these, so leaving a step out changes the tokens.
    """
    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return re.sub(r"\s+", " ", text).strip()


def _bad(where: str, error: object) -> WeightsError:
    return WeightsError(
        f"the tokenizer cannot be read: {str(error)[:200]}",
        where=where,
        remedy="give the tokenizer.json or spiece.model of UMT5",
    )


def no_tokenizer(where: str = "") -> WeightsError:
    """The error for an encoder without a tokenizer."""
    return WeightsError(
        "no tokenizer in the text encoder's file nor beside it, and none was named",
        where=where or None,
        remedy="set text_encoder.tokenizer to its tokenizer.json or spiece.model",
    )


def find_tokenizer(header: Header, given: Path | None) -> Path | None:
    """The file that a text encoder's tokenizer is in; None where there is none.

    The one that is given, else the encoder's own file if it carries one, else one beside
    it. Nothing is read but the header that was read already.

    Raises:
        WeightsError: What is given is no file.
    """
    if given is not None:
        inside = [found for name in NAMES if (found := given / name).is_file()]
        if not inside and not given.is_file():
            raise _bad(str(given), "no such file")
        return inside[0] if inside else given
    if carries_tokenizer(header):
        return header.path
    folder = header.path if header.path.is_dir() else header.path.parent
    places = [folder / beside / name for beside in BESIDE for name in NAMES]
    return next((place for place in places if place.is_file()), None)


def carries_tokenizer(header: Header) -> bool:
    """Whether an encoder's file has its tokenizer in it."""
    from .gguf_tokenizer import has_tokenizer

    return (
        "tokenizer_json" in header.metadata
        or "spiece_model" in header.tensors
        or has_tokenizer(header)
    )


def check_tokenizer(header: Header, place: Path) -> None:
    """What size, first and last bytes of a tokenizer tell, without reading it.

    Args:
        header: Of the text encoder.
        place: From ``find_tokenizer``: a file of its own, or the encoder's.

    Raises:
        WeightsError: It is too large, cut short, or of another kind.
    """
    where = str(place)
    try:
        if place != header.path:
            _check_stretch(place, 0, place.stat().st_size, where)
        elif "tokenizer_json" in header.metadata:
            content = header.metadata["tokenizer_json"]
            if not isinstance(content, str):
                raise ValueError("it is no text")
            _check_ends(content[:1].encode(), content[-64:].rstrip()[-1:].encode())
        elif "spiece_model" in header.tensors:
            held = header.tensors["spiece_model"]
            _check_stretch(held.file or place, held.offset, held.nbytes, where)
        else:
            from .gguf_tokenizer import check_gguf_tokenizer

            check_gguf_tokenizer(header)
    except OSError as error:
        raise _bad(where, error.strerror or error) from error
    except ValueError as error:
        raise _bad(where, error) from error


def _check_stretch(file: Path, start: int, size: int, where: str) -> None:
    """Size and ends of a stretch of a file."""
    if size > _LARGEST:
        raise _bad(where, f"{size:,} bytes; at most {_LARGEST:,} are read")
    with file.open("rb") as stream:
        stream.seek(start)
        first = stream.read(min(size, 1))
        stream.seek(start + max(0, size - 64))
        _check_ends(first, stream.read(min(size, 64)).rstrip()[-1:])


def _check_ends(first: bytes, last: bytes) -> None:
    """Raise ValueError for what begins or ends as no tokenizer does."""
    if first == b"{" and last != b"}":
        raise ValueError("its JSON is cut short")
    if first not in (b"{", b"\n"):  # with 10, its first field, a SentencePiece model begins
        raise ValueError("neither JSON nor a SentencePiece model")


def open_tokenizer(header: Header, place: Path) -> Tokenize:
    """A function text -> ids, ended, from what ``find_tokenizer`` found.

    Raises:
        WeightsError: It cannot be read.
    """
    where = str(place)
    check_tokenizer(header, place)
    try:
        if place != header.path:
            content = place.read_bytes()
            if content[:1] == b"{":
                return _from_json(content.decode("utf-8", "replace"))
            return _from_sentencepiece(content)
        if "tokenizer_json" in header.metadata:
            return _from_json(str(header.metadata["tokenizer_json"]))
        if "spiece_model" in header.tensors:
            from .mapped import MappedFile

            raw = MappedFile(header).raw(header.tensors["spiece_model"])
            return _from_sentencepiece(raw.numpy().tobytes())
        from .gguf_tokenizer import read_gguf_tokenizer

        return _from_unigram(read_gguf_tokenizer(header.files[0]))  # place may be its folder
    except WeightsError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise _bad(where, getattr(error, "strerror", None) or error) from error


def _from_json(content: str) -> Tokenize:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    end = tokenizer.token_to_id(END)
    if end is None:
        raise ValueError(f"it has no token '{END}'")
    return _ended(tokenizer, end)


def _from_sentencepiece(content: bytes) -> Tokenize:
    from .sentencepiece_file import read_sentencepiece

    return _from_unigram(read_sentencepiece(content))


def _from_unigram(model: Unigram) -> Tokenize:
    return _ended(build_tokenizer(model), model.end_id())


def _ended(tokenizer: Any, end: int) -> Tokenize:
    def tokenize(text: str) -> list[int]:
        ids = list(tokenizer.encode(clean(text)).ids)
        return ids if ids[-1:] == [end] else [*ids, end]

    return tokenize
