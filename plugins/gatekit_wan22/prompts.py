"""Prompts to embeddings for one run: from the cache, else by the encoder, which is freed again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .conditioning import pad_text
from .embeddings_cache import key_of, open_cache
from .header import read_header
from .sizes_umt5 import read_umt5_sizes
from .text_encoder import load_text_encoder, text_length
from .tokenizer import clean, find_tokenizer, no_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("gatekit.wan22")


def embed_prompts(
    texts: Sequence[str],
    *,
    file: Path,
    precision: str,
    device: str,
    tokenizer: Path | None = None,
) -> Tensor:
    """Embeddings ``[B, text_length, d]`` float32 on ``device``, zeros after each text.

    A prompt that was encoded before, by the same files at the same precision on the same
    kind of device, comes from the cache, with the same bits; if all did, no weight is read.

    Raises:
        WeightsError: The file is no text encoder, or there is no tokenizer.
    """
    import torch

    from .memory import give_back

    header = read_header(file, role="text_encoder")
    width, length = read_umt5_sizes(header).dim, text_length(header)
    place = find_tokenizer(header, tokenizer)
    if place is None:
        raise no_tokenizer(str(header.path))
    files = tuple(dict.fromkeys([*header.files, place]))
    kind = device.partition(":")[0]
    cache = open_cache()
    found: dict[str, Tensor] = {}
    keys = {
        text: key_of(clean(text), files, precision=precision, device=kind, length=length)
        for text in texts
    }
    if cache is not None:
        cached = {text: cache.get(key, width) for text, key in keys.items()}
        found = {text: each for text, each in cached.items() if each is not None}
    for embedding in found.values():
        if embedding.shape[1] >= length:
            log.warning("a prompt takes all %d tokens; what was beyond them is cut", length)
    if found:
        log.info("text embeddings from the cache: %d of %d", len(found), len(keys))
    missing = [text for text in keys if text not in found]
    if missing:
        encoder = load_text_encoder(
            file, precision=precision, device=device, tokenizer=tokenizer, keep="never"
        )
        for text, embedding in zip(missing, encoder.embed_each(missing), strict=True):
            found[text] = embedding
            if cache is not None:
                cache.put(keys[text], embedding)
        del encoder
        give_back(device)
    return torch.cat([pad_text(found[text].to(device), length) for text in texts])
