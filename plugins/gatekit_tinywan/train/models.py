"""The untrained modules, and their files between stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gatekit_tinywan.train.config import TEXT_ENCODER, TRANSFORMER, VAE
from gatekit_tinywan.vocabulary import build_tokenizer
from gatekit_wan22.whole_clip import use_whole_clip


def build_vae() -> Any:
    """AutoencoderKLWan of the small sizes, running whole clips."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    return use_whole_clip(AutoencoderKLWan(**VAE))


def build_transformer() -> Any:
    """WanTransformer3DModel of the small sizes."""
    from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

    return WanTransformer3DModel(**TRANSFORMER)


def build_text_encoder() -> Any:
    """UMT5EncoderModel of the small sizes."""
    from transformers import UMT5Config, UMT5EncoderModel

    size = build_tokenizer().get_vocab_size()
    return UMT5EncoderModel(UMT5Config(vocab_size=size, **TEXT_ENCODER))


class TextConditioned(nn.Module):
    """Text encoder and transformer as one module that predicts velocity."""

    def __init__(self) -> None:
        super().__init__()
        self.text = build_text_encoder()
        self.transformer = build_transformer()

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings ``[B, TEXT_LENGTH, d]``, zero beyond the text, as Wan has them."""
        # Added to the scores as it is. Of a mask of 0 and 1 the library asks whether it is all 1,
        # and waits for the device.
        least = torch.finfo(torch.float32).min
        hidden_words = torch.zeros(mask.shape, device=mask.device).masked_fill(mask == 0, least)
        hidden = self.text(
            input_ids=ids, attention_mask=hidden_words[:, None, None]
        ).last_hidden_state
        return hidden * mask[..., None].to(hidden.dtype)

    def forward(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        """Velocity of ``x`` ``[B, 36, T, h, w]`` (noise 16, mask 4, condition 16)."""
        return self.transformer(x, 1000.0 * sigma, text, return_dict=False)[0]


def save(path: Path, model: nn.Module, parts: int = 1) -> None:
    """Write float32 weights in ``parts`` files of similar size: ``NAME.0.safetensors`` ...

    Parameters that share memory (UMT5's two names of its embedding) are written once.
    """
    from safetensors.torch import save_file

    tensors = dict(model.named_parameters())  # named_parameters lists shared ones once
    groups: list[dict[str, Tensor]] = [{} for _ in range(parts)]
    weights = [0] * parts
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].numel()):
        least = weights.index(min(weights))
        groups[least][name] = tensor.detach().float().cpu().contiguous()
        weights[least] += tensor.numel()
    path.parent.mkdir(parents=True, exist_ok=True)
    for i, group in enumerate(groups):
        save_file(group, path.with_name(f"{path.name}.{i}.safetensors"))


def restore(path: Path, model: nn.Module) -> None:
    """Load what ``save`` wrote into ``model``."""
    from safetensors.torch import load_file

    files = sorted(path.parent.glob(f"{path.name}.*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{path}: no files of an earlier stage; run that stage first")
    tensors = {k: v for file in files for k, v in load_file(file).items()}
    wanted = {name for name, _ in model.named_parameters()}
    if wanted != set(tensors):
        raise ValueError(f"{path}: other parameters than the model's: {wanted ^ set(tensors)}")
    model.load_state_dict(tensors, strict=False)  # buffers are computed, not stored
