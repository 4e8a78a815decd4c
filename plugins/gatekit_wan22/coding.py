"""What of the family computes: prompts and images to conditionings, latents to video."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gatekit import (
    Components,
    ComponentSpec,
    InputError,
    Inputs,
    ModelFamily,
    ScheduleError,
    VideoSpec,
)

from .conditioning import WanConditioning, image_condition

if TYPE_CHECKING:
    from torch import Tensor

    from .text_encoder import WanTextEncoder
    from .vae import WanVAE

# Wan's own default, part of its published configuration.
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，"
    "低质量，JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，"
    "毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)


class WanCoding(ModelFamily):
    """Text encoder and VAE at work, each loaded for what it is needed for and freed again.

    Attributes:
        z_dim: Latent channels.
        spatial_stride: Pixels a latent pixel, each way.
        temporal_stride: Frames a latent frame, after the first.
        negative_prompt: Where none is given.
        image_as: Whether a first frame goes in as mask and condition (``channels``), or as
            latent frame 0 itself (``frame``: the 5B model).
    """

    z_dim: int = 16
    spatial_stride: int = 8
    temporal_stride: int = 4
    negative_prompt: str = NEGATIVE_PROMPT
    image_as: Literal["channels", "frame"] = "channels"

    @property
    @abstractmethod
    def image_use(self) -> Literal["never", "required", "optional"]:
        """Whether an image goes in; ``optional`` makes mask and condition zeros without one."""

    def latent_shape(self, video: VideoSpec) -> tuple[int, int, int, int]:
        """``(C, T, H, W)`` of the latent."""
        return (
            self.z_dim,
            (video.frames - 1) // self.temporal_stride + 1,
            video.height // self.spatial_stride,
            video.width // self.spatial_stride,
        )

    def encode(
        self, inputs: Inputs, video: VideoSpec, device: str
    ) -> Mapping[str, WanConditioning]:
        """``positive`` and ``negative``, on ``device``; the encoders are freed again."""
        from .prompts import embed_prompts

        self.check_inputs(inputs)
        if video.frames == 1 and inputs.image is not None and inputs.last_image is not None:
            raise InputError(
                "a video of one frame has no last frame besides the first",
                remedy="give one image, or more frames",
            )
        negative = inputs.negative_prompt
        prompts = (inputs.prompt, self.negative_prompt if negative is None else negative)
        text = embed_prompts(prompts, **self._text_encoder(device)).to(device)
        image = self.encode_image(inputs.image, video, device, inputs.last_image)
        given = {"first_frame" if self.image_as == "frame" else "image": image}
        return {
            name: WanConditioning(text=text[i : i + 1], **given)
            for i, name in enumerate(("positive", "negative"))
        }

    def encode_image(
        self, image: Any, video: VideoSpec, device: str, last_image: Any = None
    ) -> Tensor | None:
        """Mask and condition ``[1, 4 + z, T, h, w]`` of first and last frame; None without any.

        Where the model takes a first frame as latent frame 0 (``image_as``): ``[1, z, 1, h, w]``.
        """
        import torch

        from .image import fit, tell_cut, to_tensor

        known = {n: i for n, i in ((0, image), (-1, last_image)) if i is not None}
        if not known:
            if self.image_use != "optional" or self.image_as == "frame":
                return None
            z, *rest = self.latent_shape(video)
            return torch.zeros(1, 4 + z, *rest, device=device)
        frames = 1 if self.image_as == "frame" else video.frames
        clip = torch.zeros(1, 3, frames, video.height, video.width)
        for number, given in known.items():
            pixels = to_tensor(given)
            name = str(given) if isinstance(given, str | Path) else "the image"
            tell_cut(pixels, name, video.width, video.height)
            clip[0, :, number] = fit(pixels, video.width, video.height) * 2.0 - 1.0
        encoded = self._by_vae(device, lambda vae: vae.encode(clip).to(device))
        if self.image_as == "frame":
            return encoded
        return image_condition(encoded, video.frames, tuple(known))

    def encode_video(self, frames: Iterable[Tensor], video: VideoSpec, device: str) -> Tensor:
        """Normalised latent ``[1, z, T, h, w]`` of a video, each frame fitted as images are."""
        import torch

        from .image import fit, tell_cut

        clip = torch.empty(1, 3, video.frames, video.height, video.width)
        for i, frame in enumerate(frames):
            pixels = frame.permute(2, 0, 1)
            if i == 0:
                tell_cut(pixels, "the video to start from", video.width, video.height)
            clip[0, :, i] = fit(pixels, video.width, video.height) * 2.0 - 1.0
        return self._by_vae(device, lambda vae: vae.encode(clip).to(device))

    def decode(self, latent: Tensor, video: VideoSpec, device: str) -> Tensor:
        """Latent ``[C, T, H, W]`` -> video ``[frames, H, W, 3]`` in [0, 1], on the CPU."""
        frames = self._by_vae(device, lambda vae: vae.decode(latent[None])[0].cpu())
        return frames.add_(1.0).div_(2.0).permute(1, 2, 3, 0).contiguous()

    def video_of(self, shape: tuple[int, ...], fps: float) -> VideoSpec:
        """Size of the video of a latent ``(C, T, H, W)``, by the strides of the VAE's file."""
        from .header import read_header
        from .sizes_parts import read_vae_sizes

        sizes = read_vae_sizes(read_header(self._file("vae"), role="vae"))
        channels, frames, height, width = shape
        if channels != sizes.z_dim:
            raise InputError(
                f"this VAE's latents have {sizes.z_dim} channels",
                where=str(self._file("vae")),
                value=list(shape),
                remedy="give the VAE that belongs to the latent",
            )
        stride = sizes.spatial_stride
        frames = (frames - 1) * sizes.temporal_stride + 1
        return VideoSpec(width * stride, height * stride, frames, fps)

    def open_text_encoder(self, device: str) -> WanTextEncoder:
        """The text encoder, loaded where its section says."""
        from .text_encoder import load_text_encoder

        return load_text_encoder(**self._text_encoder(device))

    def open_vae(self, device: str) -> WanVAE:
        """The VAE, loaded where its section says."""
        from .vae import load_vae

        return load_vae(**self._opening("vae", device), tile=self._section("vae").tile)

    def _text_encoder(self, device: str) -> dict[str, Any]:
        """How the text encoder is opened."""
        tokenizer = self._section("text_encoder").tokenizer
        return {**self._opening("text_encoder", device), "tokenizer": tokenizer}

    def _opening(self, key: str, device: str) -> dict[str, Any]:
        """How a part is opened: its file, its precision, and where: what its section says."""
        spec = self._section(key)
        return {
            "file": self._file(key),
            "precision": spec.precision,
            "device": spec.device or device,
        }

    def _by_vae(self, device: str, use: Callable[[WanVAE], Tensor]) -> Tensor:
        """What ``use`` makes of the VAE, which is freed again."""
        from .memory import give_back

        vae = self.open_vae(device)
        result = use(vae)
        del vae
        give_back(device)
        return result

    def _section(self, key: str) -> ComponentSpec:
        components: Components = self.components
        spec: ComponentSpec | None = getattr(components, key)
        if spec is None:
            raise ScheduleError(
                f"the schedule has no '{key}'", remedy=f"add '{key}: {{file: ...}}'"
            )
        return spec

    def _file(self, key: str) -> Path:
        spec = self._section(key)
        if spec.file is None:
            raise ScheduleError(
                f"the file of '{key}' was not found", remedy="see where 'gatekit plan' looks for it"
            )
        return spec.file
