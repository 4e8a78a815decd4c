"""Wan's text encoder: UMT5, prompts to embeddings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit import InputError, WeightsError

from .conditioning import TEXT_LENGTH, pad_text
from .header import Header, read_header
from .sizes_umt5 import UMT5Sizes, read_umt5_sizes, umt5_tensors
from .tokenizer import Tokenize, find_tokenizer, no_tokenizer, open_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from .umt5 import Weights

log = logging.getLogger("gatekit.wan22")


class WanTextEncoder:
    """An opened UMT5 encoder; made by ``load_text_encoder``.

    Attributes:
        sizes: Its sizes.
        text_length: Tokens that the diffusion model sees.
        tokenize: Text to token ids, ended; None where there is no tokenizer.
    """

    def __init__(
        self, weights: Weights, sizes: UMT5Sizes, text_length: int, tokenize: Tokenize | None
    ) -> None:
        self._weights, self.sizes = weights, sizes
        self.text_length, self.tokenize = text_length, tokenize

    def embed_ids(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings of token ids.

        Args:
            ids: ``[B, L]`` integers.
            mask: ``[B, L]``, non-zero where a token counts; None counts all.

        Returns:
            ``[B, L, d]`` float32, zero where the mask is.
        """
        if ids.ndim != 2 or (mask is not None and mask.shape != ids.shape):
            raise self._bad_ids()
        kept = None if mask is None else (mask != 0).to(self._weights.device)
        (out,) = self._encode([ids], [kept])
        return out if kept is None else out * kept.unsqueeze(-1)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of prompts, ``[B, text_length, d]`` float32, zeros after the text.

        Each prompt is encoded alone, at its true length: its embedding does not depend on
        what else is encoded. A longer one is cut, as Wan's own code does, with a warning.

        Raises:
            WeightsError: There is no tokenizer.
        """
        import torch

        return torch.cat([pad_text(each, self.text_length) for each in self.embed_each(texts)])

    def embed_each(self, texts: Sequence[str]) -> list[Tensor]:
        """As ``embed``, without the zeros: for each prompt ``[1, its tokens, d]``."""
        import torch

        if self.tokenize is None:
            raise no_tokenizer()
        ids = [torch.tensor([self._cut(self.tokenize(text))]) for text in texts]
        return self._encode(ids, [None] * len(ids))

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= self.text_length:
            return ids
        log.warning("prompt of %d tokens cut to %d", len(ids), self.text_length)
        return [*ids[: self.text_length - 1], ids[-1]]

    def _encode(self, ids: list[Tensor], masks: Sequence[Tensor | None]) -> list[Tensor]:
        import torch

        from .umt5 import encode

        for each in ids:
            if not 0 <= int(each.min()) <= int(each.max()) < self.sizes.vocabulary:
                raise self._bad_ids()
        with torch.no_grad():
            return encode(self._weights, self.sizes, ids, masks)

    def _bad_ids(self) -> InputError:
        return InputError(
            f"token ids must be [B, L] in 0..{self.sizes.vocabulary - 1}, a mask of the same shape",
            remedy="use the tokenizer that belongs to the text encoder",
        )


def text_length(header: Header) -> int:
    """Tokens that the diffusion model sees: metadata ``text_length``, else 512."""
    given = header.metadata.get("text_length", TEXT_LENGTH)
    try:
        length = int(given)
    except (TypeError, ValueError):
        length = 0
    if not 1 <= length <= 65536:
        raise WeightsError(
            "metadata 'text_length' is no length",
            where=str(header.path),
            value=given,
            remedy="write a number from 1 to 65536",
        )
    return length


def load_text_encoder(
    file: str | Path,
    *,
    precision: str = "fp32",
    device: str = "cpu",
    tokenizer: str | Path | None = None,
    keep: str = "auto",
) -> WanTextEncoder:
    """Open a UMT5 encoder of any size.

    Weights stay where they are, in the file, and are decoded a matrix at a time.

    Args:
        file: safetensors or GGUF; Wan's, transformers' or llama.cpp's names. Metadata
            ``text_length`` replaces 512.
        precision: What the products are computed in: ``fp32``, ``bf16`` or ``fp16``.
        device: Where they are computed.
        tokenizer: ``tokenizer.json`` or ``spiece.model``, or a folder of one; None looks
            into the file and beside it. Without one, ``embed_ids`` still works.
        keep: Whether decoded weights stay in memory for the next call: ``always``,
            ``never``, or ``auto`` while they take a quarter of what is free.

    Raises:
        WeightsError: The file is missing, damaged, or no such encoder.
    """
    from .mapped import MappedFile
    from .model import keep_decoded
    from .precision import torch_dtype
    from .umt5 import Weights

    header = read_header(file, role="text_encoder")
    sizes, tensors, dtype = read_umt5_sizes(header), umt5_tensors(header), torch_dtype(precision)
    kept = keep_decoded(keep, tensors, dtype, device)
    weights = Weights(MappedFile(header), tensors, dtype, device, kept)
    place = find_tokenizer(header, Path(tokenizer) if tokenizer else None)
    tokenize = open_tokenizer(header, place) if place is not None else None
    return WanTextEncoder(weights, sizes, text_length(header), tokenize)
