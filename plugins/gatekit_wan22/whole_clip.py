"""Run a Wan VAE over all frames at once instead of in cached chunks of four.

The chunked form of diffusers bounds memory at real sizes; over all frames at once the same
weights give the same values with a fraction of the kernel launches, and can be trained.
The two differ only in how a resampling layer treats the first latent frame, which stands
for one video frame while every other stands for four:

- down in time: frame 0 passes untouched, then a stride-2 convolution over all frames;
- up in time: frame 0 passes untouched, the others are doubled by a causal convolution that
  does not see frame 0 (it is padded with zeros there).

The shortcuts of a VAE 2.2 treat it likewise by themselves: the mean of frames is padded in
front, and of the doubled first frame one is dropped (``first_chunk``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def use_whole_clip(vae: Any) -> Any:
    """Make every resampling layer of ``vae`` (AutoencoderKLWan) treat its input as one clip.

    Afterwards use ``encode_clip`` and ``decode_clip``; the model's own chunked ``encode`` and
    ``decode`` no longer apply. Returns ``vae``.
    """
    for module in vae.modules():
        if type(module).__name__ == "WanResample":
            module.forward = _ClipResample(module)
    return vae


def encode_clip(vae: Any, video: Tensor) -> tuple[Tensor, Tensor]:
    """Video ``[B, 3, F, H, W]`` in [-1, 1] -> posterior mean, log-variance ``[B, z, T, h, w]``."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import patchify

    pixels = patchify(video, vae.config.patch_size or 1)
    mean, logvar = vae.quant_conv(vae.encoder(pixels)).chunk(2, dim=1)
    return mean, logvar.clamp(-30.0, 20.0)


def decode_clip(vae: Any, latent: Tensor) -> Tensor:
    """Raw latent ``[B, z, T, h, w]`` -> video ``[B, 3, F, H, W]``, not clamped."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    x = vae.post_quant_conv(latent)
    x = vae.decoder(x, first_chunk=True) if vae.config.is_residual else vae.decoder(x)
    return unpatchify(x, vae.config.patch_size or 1)


class _ClipResample:
    """The forward of one WanResample over a whole clip; keeps no state of its own."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, x: Tensor, feat_cache: object = None, feat_idx: object = None) -> Tensor:
        module = self.module
        if module.mode == "upsample3d" and x.shape[2] > 1:
            rest = module.time_conv(x[:, :, 1:])
            batch, channels, frames, height, width = rest.shape
            rest = rest.view(batch, 2, channels // 2, frames, height, width)
            rest = rest.transpose(1, 2).transpose(2, 3)
            rest = rest.reshape(batch, channels // 2, 2 * frames, height, width)
            x = _join(x[:, :, :1], rest)
        batch, _, frames = x.shape[:3]
        flat = module.resample(x.transpose(1, 2).flatten(0, 1))
        x = flat.unflatten(0, (batch, frames)).transpose(1, 2)
        if module.mode == "downsample3d" and frames > 1:
            x = _join(x[:, :, :1], module.time_conv(x))
        return x


def _join(first: Tensor, rest: Tensor) -> Tensor:
    import torch

    return torch.cat([first, rest], dim=2)
