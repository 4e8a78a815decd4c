"""Wan's video autoencoder: frames to normalised latents and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit import InputError, WeightsError

from . import vae_stream
from .header import Header, read_header
from .latent_statistics import statistics
from .sizes import compare_shapes
from .sizes_parts import VAESizes, read_vae_sizes, vae_tensors
from .vae_tiles import Grid, Tile, grid

if TYPE_CHECKING:
    from torch import Tensor

# Up to this many values at full resolution (pixels x base channels x frames), all frames go
# through at once; beyond it, piece by piece in time and in tiles. Fixed, so that a rerun has the
# same bits.
WHOLE_CLIP = 1 << 24


class WanVAE:
    """A loaded VAE; made by ``load_vae``.

    Attributes:
        model: diffusers' ``AutoencoderKLWan``.
        sizes: Its sizes.
        mean: Latent mean a channel, ``[1, z, 1, 1, 1]``.
        std: Latent standard deviation a channel, likewise.
        tile: ``auto``, ``never``, or the pixels that a tile may measure each way.
    """

    def __init__(
        self, model: Any, sizes: VAESizes, mean: Tensor, std: Tensor, tile: Tile = "auto"
    ) -> None:
        self.model, self.sizes, self.mean, self.std = model, sizes, mean, std
        self.tile: Tile = tile

    @property
    def device(self) -> str:
        """Where the weights are."""
        return str(self.mean.device)

    def encode(self, video: Tensor) -> Tensor:
        """Video ``[B, 3, F, H, W]`` in [-1, 1] -> normalised latent ``[B, z, T, h, w]``, float32.

        The posterior's mean is taken; nothing is drawn.

        Raises:
            InputError: F is not 4k + 1, or H or W no multiple of the stride.
        """
        import torch

        s, t = self.sizes.spatial_stride, self.sizes.temporal_stride
        batch_ok = video.ndim == 5 and video.shape[1] == 3
        if not batch_ok or (video.shape[2] - 1) % t or video.shape[3] % s or video.shape[4] % s:
            raise InputError(
                f"a video must be [B, 3, {t}k + 1, {s}i, {s}j]",
                value=list(video.shape),
                remedy="crop or pad it",
            )
        x = video.to(self.mean.device)
        with torch.no_grad():
            if self._whole(*video.shape[2:]):
                x = x.to(self.model.dtype)
                mean = self._at_once(lambda clip: clip.encode_clip(self.model, x)[0])
            else:
                tiles = self.tiles(video.shape[3] // s, video.shape[4] // s, decoding=False)
                mean = vae_stream.encode(self.model, self.sizes, x, tiles)
        return (mean.float() - self.mean) / self.std

    def decode(self, latent: Tensor) -> Tensor:
        """Normalised latent ``[B, z, T, h, w]`` -> video ``[B, 3, F, H, W]`` in [-1, 1]."""
        import torch

        if latent.ndim != 5 or latent.shape[1] != self.sizes.z_dim:
            raise InputError(
                f"a latent must be [B, {self.sizes.z_dim}, T, h, w]",
                value=list(latent.shape),
                remedy="give a latent of this VAE",
            )
        z = latent.to(self.mean.device, torch.float32) * self.std + self.mean
        z = z.to(self.model.dtype)
        frames = (latent.shape[2] - 1) * self.sizes.temporal_stride + 1
        height, width = (n * self.sizes.spatial_stride for n in latent.shape[3:])
        with torch.no_grad():
            if self._whole(frames, height, width):
                video = self._at_once(lambda clip: clip.decode_clip(self.model, z))
                return video.float().clamp_(-1.0, 1.0)
            tiles = self.tiles(*latent.shape[3:], decoding=True)
            return vae_stream.decode(self.model, self.sizes, z, tiles)

    def tiles(self, height: int, width: int, *, decoding: bool) -> Grid:
        """The tiles of a frame of ``height`` x ``width`` latent pixels.

        Raises:
            InputError: ``tile`` is too small to hold the borders.
        """
        item = self.model.dtype.itemsize
        return grid(height, width, self.sizes, item, self.tile, decoding=decoding)

    def _whole(self, frames: int, height: int, width: int) -> bool:
        widest = max(self.sizes.base_dim, self.sizes.decoder_base_dim)
        return frames * height * width * widest <= WHOLE_CLIP

    def _at_once(self, evaluate: Any) -> Tensor:
        """Evaluate with the resampling layers set to take all frames; set back afterwards."""
        from . import whole_clip

        whole_clip.use_whole_clip(self.model)
        try:
            return evaluate(whole_clip)
        finally:
            for module in self.model.modules():
                module.__dict__.pop("forward", None)


def load_vae(
    file: str | Path, *, precision: str = "fp32", device: str = "cpu", tile: Tile = "auto"
) -> WanVAE:
    """Open a VAE of Wan 2.1 or 2.2, of any width.

    Args:
        file: safetensors, official or diffusers names. Metadata ``latents_mean`` and
            ``latents_std`` (JSON lists) replace the constants of Wan's VAE.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: Where the weights go.
        tile: How large clips are cut: ``auto`` by their size, ``never``, or the pixels that a
            tile may measure each way. The result is that of whole frames, up to rounding.

    Raises:
        WeightsError: The file is missing, damaged, or no such VAE.
    """
    import torch

    from .mapped import MappedFile
    from .precision import torch_dtype

    header = read_header(file, role="vae")
    sizes, tensors = read_vae_sizes(header), vae_tensors(header)
    mean, std = statistics(header, sizes.z_dim)
    model = empty_vae(sizes, header)
    compare_shapes(header, tensors, {n: tuple(p.shape) for n, p in model.state_dict().items()})
    mapped, dtype = MappedFile(header), torch_dtype(precision)
    weights = {name: mapped.read(info, dtype, device) for name, info in tensors.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    model.requires_grad_(False)
    view = (1, -1, 1, 1, 1)
    return WanVAE(
        model,
        sizes,
        torch.tensor(mean, device=device).view(view),
        torch.tensor(std, device=device).view(view),
        tile,
    )


def empty_vae(sizes: VAESizes, header: Header | None = None) -> Any:
    """``AutoencoderKLWan`` whose parameters have shapes but no memory.

    Raises:
        WeightsError: Widths that no shortcut of a VAE 2.2 can join.
    """
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    pixels = 3 * sizes.patch**2
    try:
        with torch.device("meta"):
            model = AutoencoderKLWan(
                base_dim=sizes.base_dim,
                decoder_base_dim=sizes.decoder_base_dim,
                z_dim=sizes.z_dim,
                dim_mult=list(sizes.dim_mult),
                num_res_blocks=sizes.res_blocks,
                temperal_downsample=list(sizes.down_in_time),
                latents_mean=[0.0] * sizes.z_dim,
                latents_std=[1.0] * sizes.z_dim,
                is_residual=sizes.residual,
                in_channels=pixels,
                out_channels=pixels,
                patch_size=sizes.patch if sizes.patch > 1 else None,  # pyright: ignore[reportArgumentType]
                scale_factor_temporal=sizes.temporal_stride,
                scale_factor_spatial=sizes.spatial_stride,
            )
    except (ValueError, AssertionError) as error:
        raise WeightsError(
            f"the widths {list(sizes.dim_mult)} x {sizes.base_dim} fit no Wan VAE",
            where=str(header.path) if header else None,
            remedy="the file mixes models, or is damaged",
        ) from error
    return model.eval()
