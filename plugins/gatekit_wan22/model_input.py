"""What one evaluation gives the transformer: its state with the image, its times, its text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import InputError

from .sizes import TransformerSizes

if TYPE_CHECKING:
    from torch import Tensor


def check_text(text: Tensor, batch: int, width: int) -> None:
    """Raise InputError for embeddings that are not ``[1 or batch, L, width]``."""
    if text.ndim != 3 or text.shape[-1] != width or text.shape[0] not in (1, batch):
        raise InputError(
            f"text embeddings must be [1 or {batch}, L, {width}] for this model",
            value=list(text.shape),
            remedy="use the text encoder that belongs to it",
        )


def times(x: Tensor, time: float, first: Tensor | None, device: str) -> Tensor:
    """``[B]``; where a first frame is known ``[B, tokens]``, 0 at its tokens, on the CPU."""
    import torch

    if first is None:
        return torch.full((x.shape[0],), time, dtype=torch.float64, device=device)
    frames, height, width = x.shape[2:]
    found = torch.full((x.shape[0], frames, height * width // 4), time, dtype=torch.float64)
    found[:, : first.shape[2]] = 0.0
    return found.flatten(1)


def check_first_frame(x: Tensor, first: Tensor | None, sizes: TransformerSizes, where: str) -> None:
    """Raise InputError for a latent first frame that the model or the state cannot take."""
    if first is None:
        return
    if sizes.image_channels:
        raise InputError(
            "a latent first frame was given to a model that takes mask and condition",
            where=where,
            remedy="give 'image', made with image_condition",
        )
    wanted = (x.shape[1], 1, *x.shape[3:])
    if tuple(first.shape[1:]) != wanted or first.shape[0] not in (1, x.shape[0]):
        raise InputError(
            f"a first frame must be [B, {', '.join(map(str, wanted))}] for this state",
            value=list(first.shape),
            remedy="encode it with the VAE, at the size of the video",
        )


def with_image(
    x: Tensor, image: Tensor | None, sizes: TransformerSizes, *, optional: bool, where: str
) -> Tensor:
    """``x`` with the channels of mask and condition after its own.

    Args:
        x: The state ``[B, C, T, H, W]``.
        image: ``[1 or B, 4 + C, T, H, W]``, or None.
        sizes: The model's.
        optional: Whether zeros stand in for an image that is not given.
        where: Name of the model's file, for errors.

    Raises:
        InputError: Channels, image or sizes do not fit the model.
    """
    import torch

    channels, extra = sizes.out_channels, sizes.image_channels
    if x.ndim != 5 or x.shape[1] != channels or x.shape[3] % 2 or x.shape[4] % 2:
        raise InputError(
            f"the state must be [B, {channels}, T, H, W] with even H and W",
            value=list(x.shape),
            remedy="give a latent of this model",
        )
    if extra == 0 and image is not None:
        raise InputError(
            "an image was given to a text-to-video model",
            where=where,
            remedy="leave the image out, or use an image-to-video model",
        )
    if extra == 0:
        return x
    if image is None and optional:
        image = x.new_zeros(1, extra, *x.shape[2:])
    if image is None:
        raise InputError(
            "an image-to-video model was given no image",
            where=where,
            remedy="give an image, or use a text-to-video model",
        )
    wanted = (extra, *x.shape[2:])
    batches = (1, x.shape[0])
    if image.ndim != 5 or tuple(image.shape[1:]) != wanted or image.shape[0] not in batches:
        raise InputError(
            f"mask and condition must be [B, {', '.join(map(str, wanted))}]",
            value=list(image.shape),
            remedy="make them with image_condition, for the size of the state",
        )
    return torch.cat([x, image.to(x.device, x.dtype).expand(x.shape[0], *wanted)], dim=1)
