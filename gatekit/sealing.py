"""Seals: whether a file that gatekit wrote still holds what was written.

A disk may lose or turn bits without a word, and a run that goes on from them ends in a video that
no run would give.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

OF_TENSORS, OF_TEXTS = "sha256 of tensors", "sha256 of texts"
BROKEN = "damaged: it does not hold what was written"


def sealed(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The metadata with what ``check_texts`` and ``check_tensors`` need; tensors are on the CPU."""
    texts = {**metadata, OF_TENSORS: _of_tensors(tensors)}
    return texts | {OF_TEXTS: _of_texts(texts)}


def check_texts(metadata: Mapping[str, str]) -> None:
    """Raise ValueError unless the metadata is what ``sealed`` gave."""
    texts = {name: text for name, text in metadata.items() if name != OF_TEXTS}
    if metadata.get(OF_TEXTS) != _of_texts(texts):
        raise ValueError(BROKEN)


def check_tensors(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless these are the tensors that ``sealed`` was given."""
    if metadata.get(OF_TENSORS) != _of_tensors(tensors):
        raise ValueError(BROKEN)


def _of_texts(texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        for part in (name, text):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _of_tensors(tensors: Mapping[str, Tensor]) -> str:
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        raw: Any = tensor.detach().contiguous().view(-1).view(torch.uint8)
        digest.update(raw.numpy())
    return digest.hexdigest()
