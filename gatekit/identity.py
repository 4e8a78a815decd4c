"""Identity of what predicts: a stable hash of files, parameters, arithmetic and guidance."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SAMPLE, SAMPLES = 1 << 14, 8


def file_identity(path: Path) -> tuple[str, int, str]:
    """``(name, size, hash)`` of a file, from a few pieces spread over it.

    A folder of shards counts as its files in order. A missing file has size -1.
    """
    digest = hashlib.sha256()
    size = 0
    parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for part in parts:
        try:
            length = part.stat().st_size
            with part.open("rb") as file:
                for i in range(SAMPLES):
                    file.seek(max(0, (length - SAMPLE) * i // (SAMPLES - 1)))
                    digest.update(file.read(SAMPLE))
        except OSError:
            return path.name, -1, ""
        size += length
    return path.name, size, digest.hexdigest()[:32]


def field_of(
    variant: str,
    params: Mapping[str, Any],
    files: Iterable[Path],
    compute: str,
    guidance: Mapping[str, Any],
    cache: Mapping[str, Any] | None = None,
) -> str:
    """Stable name of a prediction field.

    Args:
        variant: Class of the variant.
        params: Its parameters, without places of files.
        files: Files whose bytes decide what it predicts.
        compute: What the arithmetic runs in.
        guidance: Name and parameters of the guidance.
        cache: Name and parameters of the step cache, where there is one.
    """
    content = [variant, params, [file_identity(f) for f in files], compute, guidance]
    content += [cache] if cache is not None else []
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def field_with(field: str, changes: str) -> str:
    """The name of a field whose predictions are changed in a way that has a name, or not."""
    if not changes:
        return field
    return hashlib.sha256(f"{field} {changes}".encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the files of a folder in order."""
    digest = hashlib.sha256()
    parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for part in parts:
        with part.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()
