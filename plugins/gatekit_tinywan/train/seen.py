"""What an error of the latents does to the picture, as the weight of the denoiser's loss.

The channels of a latent have equal variance and very unequal consequence: in the shipped
autoencoder the same error changes the picture by fifty times the energy in one channel of what it
does in another. Plain squared error spends a small model on what nobody sees. So the loss is
e^T M e with M = E[J^T W J], J the decoder's Jacobian, W the pixels' weights (things 4, marks 12).
M is the same at every place and noise level: the best prediction stays the conditional mean, and
only the order in which its errors go changes. Weights that follow the clip's own things would move
that mean towards things.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatekit_tinywan.world import SceneBatch, render
from gatekit_wan22.whole_clip import decode_clip


def metric(
    vae: Any, latents: Tensor, scenes: SceneBatch, statistics: tuple[Tensor, Tensor]
) -> Tensor:
    """M ``[C, C]`` with trace C, from one random cotangent a clip (Hutchinson's estimator).

    Args:
        vae: The autoencoder.
        latents: Normalised latents of the scenes, ``[n, C, T, h, w]``.
        scenes: What the clips show; it says which pixels matter.
        statistics: Mean and deviation of the latents' channels, ``[C]`` each.
    """
    channels, (mean, std) = latents.shape[1], statistics
    total = torch.zeros(channels, channels, device=latents.device)
    shape = (1, -1, 1, 1, 1)
    for i in range(len(latents)):
        z = latents[i : i + 1].float().requires_grad_()
        video = decode_clip(vae, z * std.view(shape) + mean.view(shape))
        _, weights = render(
            scenes[i : i + 1], *video.shape[2:], device=z.device, return_weights=True
        )
        (grad,) = torch.autograd.grad(video, z, torch.randn_like(video) * weights.sqrt())
        rows = grad.transpose(0, 1).flatten(1)
        total += rows @ rows.T
    return total * (channels / total.trace())


def root(form: Tensor, share: float) -> Tensor:
    """R ``[C, C]`` with R^T R = (1 - share) I + share M: the loss is |R e|^2."""
    whole = torch.eye(len(form), device=form.device).lerp(form, share)
    return torch.linalg.cholesky(whole).mT.contiguous()


def weighted(error: Tensor, factor: Tensor) -> Tensor:
    """Mean of |R e|^2 / C over ``error`` ``[B, C, T, h, w]``."""
    return torch.einsum("cd,bdthw->bcthw", factor, error).square().mean()
