"""The header of a safetensors file that gatekit wrote: metadata and shapes, read within bounds.

The safetensors package reads headers of up to 100 MB, which take several times that as objects.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

LONGEST = 4 << 20  # bytes; the header of a saved latent has a few thousand


def read_header(path: Path) -> dict[str, Any]:
    """The entries of the header, by name; ``__metadata__`` is one of them.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no safetensors file, or its header is longer than any of gatekit's.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST:
            raise ValueError("its header is too long")
        raw = stream.read(length)
    try:
        found: object = json.loads(raw)
    except RecursionError as exc:
        raise ValueError("its header is nested too deeply") from exc
    if len(raw) < length or not isinstance(found, dict):
        raise ValueError("its header is no JSON object")
    return cast(dict[str, Any], found)


def read_metadata(path: Path, key: str) -> str:
    """A text of the metadata; empty where it has none. Raises as ``read_header``."""
    metadata: object = read_header(path).get("__metadata__")
    found: object = cast(dict[str, Any], metadata).get(key) if isinstance(metadata, dict) else ""
    return found if isinstance(found, str) else ""
