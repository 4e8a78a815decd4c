"""Text and plain data as files that are there whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gatekit


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8. Raises OutputError."""
    return gatekit.write_atomic(path, text.encode())


def write_json(path: Path, content: Any) -> Path:
    """Write plain data. Raises OutputError."""
    return write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
