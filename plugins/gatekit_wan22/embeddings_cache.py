"""Prompt embeddings on disk, so that a prompt is encoded once.

One safetensors file a prompt, named by a hash of all that decides the embedding. The prompt
itself is not stored; the embedding is, from which its gist can be guessed by who has the
encoder, so folder and files are the user's alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit import __version__, cache_folder, file_identity, one_line

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("gatekit.wan22")
LIMIT = 1 << 30  # bytes; about 130 prompts of 512 tokens, or 1,700 of 40
DECIDING = ("torch", "tokenizers", "gguf")  # packages that may round or split differently


def open_cache() -> EmbeddingsCache | None:
    """The cache in ``cache_folder``; None where caching is off."""
    folder = cache_folder()
    return EmbeddingsCache(folder / "embeddings") if folder is not None else None


def identity(files: tuple[Path, ...]) -> list[object]:
    """What stands for the content of files: size, time of change, hash of pieces spread over it.

    Not a hash of all of it: reading 11 GB would cost as much as the cache saves. A file
    that is copied or touched is encoded anew.
    """
    return [[*file_identity(file)[1:], file.stat().st_mtime_ns] for file in files]


def key_of(text: str, files: tuple[Path, ...], **deciding: object) -> str:
    """Name of an entry: a hash of prompt, files, versions and whatever else decides."""
    versions: list[str] = [__version__]
    for package in DECIDING:
        with contextlib.suppress(PackageNotFoundError):
            versions.append(version(package))
    content = json.dumps([text, identity(files), deciding, versions], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class EmbeddingsCache:
    """Embeddings by key; bounded, the least recently used leave first.

    Best effort: an entry that cannot be read is computed again, one that cannot be written
    costs time, no result.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def get(self, key: str, width: int) -> Tensor | None:
        """The embedding ``[1, L, width]`` float32 of a key; None where there is no sound one."""
        import torch
        from safetensors import safe_open

        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as stored:
                embedding, metadata = stored.get_tensor("embedding"), stored.metadata() or {}
            right = embedding.dtype == torch.float32 and embedding.shape[::2] == (1, width)
            if not right or metadata.get("sha256") != _digest(embedding):
                raise ValueError("not what was written")
            os.utime(path)  # it was used now
        except Exception as error:  # whatever is wrong with it, it can be computed again
            log.warning("%s is of no use (%s): the prompt is encoded again", path, one_line(error))
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return embedding

    def put(self, key: str, embedding: Tensor) -> None:
        """Keep an embedding ``[1, L, d]`` float32; all of it or nothing is written."""
        from safetensors.torch import save

        embedding = embedding.cpu().contiguous()
        content = save({"embedding": embedding}, {"sha256": _digest(embedding)})
        partial = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # mkstemp's files are the user's alone.
            number, partial = tempfile.mkstemp(dir=self.folder, suffix=".part")
            with os.fdopen(number, "wb") as stream:
                stream.write(content)
            Path(partial).replace(self._path(key))
            self._evict(keep=self._path(key))
        except OSError:
            if partial is not None:
                with contextlib.suppress(OSError):
                    Path(partial).unlink(missing_ok=True)

    def _evict(self, keep: Path) -> None:
        """Remove what was used longest ago until the rest fits; ``keep`` stays."""
        entries: list[tuple[int, int, Path]] = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may evict too
                stat = path.stat()
                entries.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self.limit:
                return
            if path != keep:
                with contextlib.suppress(OSError):
                    path.unlink()
                total -= size


def _digest(embedding: Tensor) -> str:
    return hashlib.sha256(embedding.numpy().tobytes()).hexdigest()
