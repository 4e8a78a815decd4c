"""What a Wan model is conditioned on, and how a first frame becomes its extra channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekit import Conditioning, InputError

if TYPE_CHECKING:
    from torch import Tensor

TEXT_LENGTH = 512
MASK_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class WanConditioning(Conditioning):
    """Text embeddings, and a first frame: as mask and condition, or as it is.

    Attributes:
        text: ``[B, L, d]`` float32, exactly the tokens that cross-attention sees: Wan was
            trained on 512, zeros after the prompt (``pad_text``).
        image: ``[B, 4 + 16, T, H, W]`` float32 in latent resolution, mask first
            (``image_condition``); None for text-to-video.
        first_frame: ``[B, z, 1, H, W]`` float32, the normalised latent of the first frame, for
            a model that takes it in the place of noise (TI2V-5B). The model sees it clean, at
            timestep 0, whatever the state holds there, and predicts it.
    """

    text: Tensor
    image: Tensor | None = None
    first_frame: Tensor | None = None

    def with_known(self, denoised: Tensor) -> Tensor:
        """``denoised`` with the first frame's latent, bit for bit, in its place."""
        import torch

        if self.first_frame is None:
            return denoised
        known = self.first_frame.to(denoised.device, denoised.dtype)
        known = known.expand(denoised.shape[0], -1, -1, -1, -1)
        return torch.cat([known, denoised[:, :, known.shape[2] :]], dim=2)


def pad_text(text: Tensor, length: int = TEXT_LENGTH) -> Tensor:
    """Zero-pad embeddings ``[B, L, d]`` to ``length`` tokens."""
    from torch.nn.functional import pad

    if text.shape[1] > length:
        raise InputError(
            f"the text has {text.shape[1]} tokens", remedy=f"at most {length} are possible"
        )
    return pad(text, (0, 0, 0, length - text.shape[1]))


def first_frame_mask(frames: int, height: int, width: int, device: str = "cpu") -> Tensor:
    """Wan's mask ``[1, 4, T, h, w]`` for a known first frame.

    One value a video frame: 1 where the frame is given. The first frame counts four times,
    so that every latent frame holds four: all four of latent frame 0 are ones.

    Args:
        frames: Video frames, 4k + 1.
        height: Latent height.
        width: Latent width.
        device: Where to make it.
    """
    import torch

    given = torch.zeros(1, frames, height, width, device=device)
    given[:, 0] = 1.0
    given = torch.cat([given[:, :1].expand(-1, 4, -1, -1), given[:, 1:]], dim=1)
    return given.view(1, -1, MASK_CHANNELS, height, width).transpose(1, 2).contiguous()


def image_condition(encoded: Tensor, frames: int) -> Tensor:
    """Mask and condition ``[B, 4 + z, T, h, w]``.

    Args:
        encoded: Normalised latent ``[B, z, T, h, w]`` of the video [image, zero frames].
        frames: Video frames, 4k + 1.
    """
    import torch

    batch, _, _, height, width = encoded.shape
    mask = first_frame_mask(frames, height, width, str(encoded.device)).to(encoded.dtype)
    return torch.cat([mask.expand(batch, -1, -1, -1, -1), encoded], dim=1)
