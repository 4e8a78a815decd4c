"""One prediction of a transformer that is loaded: its input put together, its velocity taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .model_input import check_first_frame, check_text, times, with_image

if TYPE_CHECKING:
    from torch import Tensor

    from .conditioning import WanConditioning
    from .sizes import TransformerSizes


def predicted(
    run: Callable[[Tensor, Tensor, Tensor], Tensor],
    sizes: TransformerSizes,
    x: Tensor,
    sigma: float,
    conditioning: WanConditioning,
    *,
    time: float,
    device: str,
    compute: str,
    image_optional: bool,
    where: str,
) -> Tensor:
    """The velocity n - x0 of x ``[B, C, T, H, W]``, in float32 where x is.

    Args:
        run: One pass of diffusers' module, from input, time and text.
        sizes: The model's sizes.
        x: The state.
        sigma: Its noise level.
        conditioning: Text, and image or first frame.
        time: The model's own time of ``sigma``.
        device: Where the model is.
        compute: What it computes in.
        image_optional: Whether zeros stand for an image that is not given.
        where: The model in error messages.

    Raises:
        InputError: Channels, image or sizes do not fit the model.
    """
    import torch

    from .precision import model_dtype

    dtype, first = model_dtype(compute), conditioning.first_frame
    check_first_frame(x, first, sizes, where)
    known = conditioning.with_known(x)
    given = with_image(known, conditioning.image, sizes, optional=image_optional, where=where).to(
        device, dtype
    )
    text = conditioning.text
    check_text(text, x.shape[0], sizes.text_dim)
    text = text.to(device, dtype).expand(x.shape[0], -1, -1)
    at = times(x, time, first, device)
    out = run(given, at, text).to(x.device, torch.float32)
    if first is not None:
        frames = first.shape[2]
        out[:, :, :frames] = (x[:, :, :frames] - first.to(x.device)) / sigma
    return out
