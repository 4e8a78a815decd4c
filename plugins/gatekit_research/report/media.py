"""Videos and pictures as data URLs, so that the page needs no other file."""

from __future__ import annotations

import base64
from pathlib import Path

TYPES = {".mp4": "video/mp4", ".webp": "image/webp", ".png": "image/png"}
MOST = 64 << 20  # bytes of videos in one page


def data_url(path: Path) -> str | None:
    """The file's bytes; None for a kind that no browser shows, or a file that is not there."""
    kind = TYPES.get(path.suffix.lower())
    if kind is None or not path.is_file():
        return None
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
