"""JSON in files: any name can be written, and no file that is read hangs or fills the memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LONGEST = 8 << 20  # bytes of a record that may come from a stranger; a run of 20,000 steps has 7 MB


def json_text(content: Any, **options: Any) -> str:
    """As JSON, readable; escaped where it holds what UTF-8 cannot, as names of files may on Linux.

    Args:
        content: Plain data.
        options: Of ``json.dumps``.
    """
    text = json.dumps(content, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(content, **options)
    return text


def read_json(path: Path, most: int | None = LONGEST) -> Any:
    """The content of a JSON file.

    Args:
        path: The file. A pipe or a device is none: it would be waited for, or never end.
        most: Bytes that it may have; None: any number.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or longer than that.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as stream:
        raw = stream.read() if most is None else stream.read(most + 1)
    if most is not None and len(raw) > most:
        raise ValueError("longer than any record of a run")
    try:
        return json.loads(raw.decode("utf-8"))
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
