"""Wan's text encoder: UMT5, prompts to embeddings."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit import InputError, WeightsError

from . import layout_umt5
from .conditioning import TEXT_LENGTH, pad_text
from .header import Header, read_header
from .sizes import compare_shapes
from .sizes_parts import UMT5Sizes, read_umt5_sizes, umt5_tensors
from .tokenizer import Tokenize, find_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("gatekit.wan22")
_SHARED_COPY = "encoder.embed_tokens.weight"


class WanTextEncoder:
    """A loaded UMT5 encoder; made by ``load_text_encoder``.

    Attributes:
        model: transformers' ``UMT5EncoderModel``.
        sizes: Its sizes.
        text_length: Tokens that the diffusion model sees.
    """

    def __init__(
        self, model: Any, sizes: UMT5Sizes, text_length: int, tokenize: Tokenize | None
    ) -> None:
        self.model, self.sizes = model, sizes
        self.text_length, self.tokenize = text_length, tokenize

    def embed_ids(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings of token ids.

        Args:
            ids: ``[B, L]`` integers.
            mask: ``[B, L]``, non-zero where a token counts; None counts all.

        Returns:
            ``[B, L, d]`` float32, zero where the mask is.
        """
        import torch

        if ids.ndim != 2 or not 0 <= int(ids.min()) <= int(ids.max()) < self.sizes.vocabulary:
            raise InputError(
                f"token ids must be [B, L] in 0..{self.sizes.vocabulary - 1}",
                remedy="use the tokenizer that belongs to the text encoder",
            )
        device = self.model.device
        ids = ids.to(device)
        mask = torch.ones_like(ids) if mask is None else mask.to(device)
        with torch.no_grad():
            out = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return out.float() * (mask != 0).unsqueeze(-1)

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of prompts, ``[B, text_length, d]`` float32, zeros after the text.

        Each prompt is encoded alone, at its true length: its embedding does not depend on
        what else is encoded. A longer one is cut, as Wan's own code does, with a warning.

        Raises:
            WeightsError: There is no tokenizer.
        """
        import torch

        if self.tokenize is None:
            raise WeightsError(
                "no tokenizer in the text encoder's file, and none was named",
                remedy="set text_encoder.tokenizer to its tokenizer.json or spiece.model",
            )
        out = []
        for text in texts:
            ids = self.tokenize(text)
            if len(ids) > self.text_length:
                log.warning("prompt of %d tokens cut to %d", len(ids), self.text_length)
                ids = [*ids[: self.text_length - 1], ids[-1]]
            out.append(pad_text(self.embed_ids(torch.tensor([ids])), self.text_length))
        return torch.cat(out)


def _text_length(header: Header) -> int:
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
) -> WanTextEncoder:
    """Open a UMT5 encoder of any size.

    Args:
        file: safetensors, Wan's or transformers' names. Metadata ``text_length`` replaces 512.
        precision: ``fp32``, ``bf16`` or ``fp16``; in fp16 the second feed-forward matrix
            stays in fp32, because its products overflow.
        device: Where the weights go.
        tokenizer: ``tokenizer.json`` or ``spiece.model``; None looks into the file
            (metadata ``tokenizer_json``, or a tensor ``spiece_model``). Without one,
            ``embed_ids`` still works.

    Raises:
        WeightsError: The file is missing, damaged, or no such encoder.
    """
    import torch

    from .mapped import MappedFile
    from .precision import torch_dtype

    header = read_header(file)
    if header.format != "safetensors":
        raise WeightsError(
            "a text encoder in GGUF",
            where=str(header.path),
            remedy="not in this version; give a safetensors file",
        )
    sizes, tensors = read_umt5_sizes(header), umt5_tensors(header)
    model = empty_umt5(sizes)
    expected = {n: tuple(p.shape) for n, p in model.state_dict().items() if n != _SHARED_COPY}
    compare_shapes(header, tensors, expected)
    mapped, dtype = MappedFile(header), torch_dtype(precision)
    weights: dict[str, Tensor] = {}
    for name, info in tensors.items():
        wide = precision == "fp16" and name.endswith("DenseReluDense.wo.weight")
        weights[name] = mapped.read(info, torch.float32 if wide else dtype, device)
    weights[_SHARED_COPY] = weights[layout_umt5.EMBEDDING]
    model.load_state_dict(weights, strict=True, assign=True)
    model.requires_grad_(False)
    tokenize = find_tokenizer(header, mapped, Path(tokenizer) if tokenizer else None)
    return WanTextEncoder(model, sizes, _text_length(header), tokenize)


def empty_umt5(sizes: UMT5Sizes) -> Any:
    """``UMT5EncoderModel`` whose parameters have shapes but no memory."""
    import torch
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=sizes.vocabulary,
        d_model=sizes.dim,
        d_kv=sizes.head_dim,
        d_ff=sizes.ffn_dim,
        num_layers=sizes.layers,
        num_heads=sizes.heads,
        relative_attention_num_buckets=sizes.buckets,
        relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    return model.eval()
