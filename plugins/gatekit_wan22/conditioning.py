"""What a Wan model is conditioned on, and how known frames become its extra channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gatekit import Conditioning, InputError

if TYPE_CHECKING:
    from torch import Tensor

TEXT_LENGTH = 512
MASK_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class WanConditioning(Conditioning):
    """Text embeddings, and known frames: as mask and condition, or a first one as it is.

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


def frame_mask(
    frames: int, height: int, width: int, device: str = "cpu", *, known: Sequence[int] = (0,)
) -> Tensor:
    """Wan's mask ``[1, 4, T, h, w]`` of the frames that are given.

    One value a video frame: 1 where the frame is given. The first frame counts four times, so
    that every latent frame holds four: frame f > 0 is value (f + 3) % 4 of latent frame
    (f + 3) // 4. A known first frame makes all four of latent frame 0 ones; a known last frame
    the last of the last latent frame alone.

    Args:
        frames: Video frames, 4k + 1.
        height: Latent height.
        width: Latent width.
        device: Where to make it.
        known: Numbers of the frames that are given, from 0; -1 is the last.
    """
    import torch

    given = torch.zeros(1, frames, height, width, device=device)
    given[:, list(known)] = 1.0
    given = torch.cat([given[:, :1].expand(-1, 4, -1, -1), given[:, 1:]], dim=1)
    return given.view(1, -1, MASK_CHANNELS, height, width).transpose(1, 2).contiguous()


def image_condition(encoded: Tensor, frames: int, known: Sequence[int] = (0,)) -> Tensor:
    """Mask and condition ``[B, 4 + z, T, h, w]``.

    Args:
        encoded: Normalised latent ``[B, z, T, h, w]`` of the video that has the known frames in
            their places and zeros (grey) elsewhere.
        frames: Video frames, 4k + 1.
        known: Numbers of the known frames, as in ``frame_mask``.
    """
    import torch

    batch, _, _, height, width = encoded.shape
    mask = frame_mask(frames, height, width, str(encoded.device), known=known).to(encoded.dtype)
    return torch.cat([mask.expand(batch, -1, -1, -1, -1), encoded], dim=1)
