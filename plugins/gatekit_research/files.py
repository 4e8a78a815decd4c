"""Files that are there whole or not at all, and places that must be writable beforehand."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import gatekit


def write_whole(path: Path, data: bytes | str) -> Path:
    """Write under another name beside it, then rename. Raises OutputError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(data.encode() if isinstance(data, str) else data)
        partial.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise gatekit.OutputError(
            f"cannot write: {exc.strerror or exc}",
            where=str(path),
            remedy="free space there, or choose another place with -o",
        ) from exc
    return path


def write_json(path: Path, content: Any) -> Path:
    """Write plain data. Raises OutputError."""
    return write_whole(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def check_out(path: Path, option: str = "-o") -> None:
    """Raise InputError where ``path`` is a folder, or its folder is not there."""
    if path.is_dir():
        raise gatekit.InputError(
            "a folder of this name exists", where=option, value=str(path), remedy="name a file"
        )
    if not path.absolute().parent.is_dir():
        raise gatekit.InputError(
            "no such folder", where=option, value=str(path.parent), remedy="make it"
        )
