"""The family ``wan22``: prompts and images to conditionings, latents to video."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from gatekit import (
    Components,
    ComponentSpec,
    FamilyParams,
    InputError,
    Inputs,
    ModelFamily,
    ModelVariant,
    ScheduleError,
    VariantFacts,
    VariantParams,
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


class WanFamilyParams(FamilyParams):
    """Keys of ``family`` besides ``use``."""

    task: Literal["t2v-a14b", "i2v-a14b", "ti2v-5b"] = Field(
        "t2v-a14b",
        description="text to video, image to video, or, with the 5B model, either",
    )


class WanFamily(ModelFamily):
    """Wan 2.2; a family of the same architecture subclasses it.

    Attributes, of the class but where the task ``ti2v-5b`` sets its own:
        z_dim: Latent channels.
        spatial_stride: Pixels a latent pixel, each way.
        temporal_stride: Frames a latent frame, after the first.
        size_multiple: What width and height must be multiples of.
        negative_prompt: Where none is given.
        video: Values for keys of ``video`` left out.
        image_as: Whether a first frame goes in as mask and condition (``channels``), or as
            latent frame 0 itself (``frame``: the 5B model).
    """

    name: ClassVar[str] = "wan22"
    Params: ClassVar[type[FamilyParams]] = WanFamilyParams
    path: ClassVar[str] = "flow"
    takes_video: ClassVar[bool] = True
    z_dim: int = 16
    spatial_stride: int = 8
    temporal_stride: int = 4
    size_multiple: int = 16
    negative_prompt: str = NEGATIVE_PROMPT
    video: Mapping[str, float] = {"width": 832, "height": 480, "frames": 81, "fps": 16}
    image_as: Literal["channels", "frame"] = "channels"

    def __init__(self, params: FamilyParams, components: Components) -> None:
        super().__init__(params, components)
        if self._task == "ti2v-5b":
            self.z_dim, self.spatial_stride, self.size_multiple = 48, 16, 32
            self.video = {"width": 1280, "height": 704, "frames": 121, "fps": 24}
            self.image_as = "frame"

    @property
    def image_use(self) -> Literal["never", "required", "optional"]:
        """Whether an image goes in; ``optional`` makes mask and condition zeros without one."""
        if self._task == "ti2v-5b":
            return "optional"
        return "required" if self._task == "i2v-a14b" else "never"

    @property
    def takes_last_image(self) -> bool:
        """Whether a last frame may be given, with a first one or alone."""
        return self._task == "i2v-a14b"

    @classmethod
    def component_facts(cls, file: Path) -> Mapping[str, VariantFacts]:
        """A UMT5 encoder or a VAE of Wan's layout, or a LoRA, told from the header."""
        from .lora.facts import lora_facts
        from .sizes_parts import component_facts

        lora = lora_facts(file)
        return {"lora": lora} if lora is not None else component_facts(file)

    @classmethod
    def parts_of(cls, path: Path) -> Sequence[Path]:
        """Experts, text encoder and VAE in the root folder of a download."""
        from .survey import parts_of

        return parts_of(path)

    @classmethod
    def describe_file(cls, file: Path) -> Sequence[str]:
        """Its tensors, and what a Wan transformer lacks."""
        from .survey import describe_file

        return describe_file(file)

    def default_video(self) -> Mapping[str, float]:
        """Wan's size, length and rate."""
        return self.video

    def check_video(self, video: VideoSpec) -> None:
        """Raise ScheduleError, with the nearest possible value, for an impossible size."""
        for key in ("width", "height"):
            size, step = getattr(video, key), self.size_multiple
            if size < step or size % step:
                near = max(step, round(size / step) * step)
                raise ScheduleError(
                    f"{key} must be a multiple of {step}",
                    value=size,
                    remedy=f"use {near}",
                    key=(key,),
                )
        step = self.temporal_stride
        if video.frames < 1 or (video.frames - 1) % step:
            near = max(0, round((video.frames - 1) / step)) * step + 1
            raise ScheduleError(
                f"frames must be {step}k + 1",
                value=video.frames,
                remedy=f"use {near}",
                key=("frames",),
            )
        if not video.fps > 0:
            raise ScheduleError(
                "fps must be above 0", value=video.fps, remedy="use 16", key=("fps",)
            )

    def check_inputs(self, inputs: Inputs) -> None:
        """Raise InputError for inputs that the task cannot use, or an unreadable image."""
        for key in ("prompt", "negative_prompt"):
            value = getattr(inputs, key)
            if not isinstance(value, str) and not (value is None and key == "negative_prompt"):
                raise InputError(
                    f"{key} must be text", value=type(value).__name__, remedy="give a str"
                )
        given = [i for i in (inputs.image, inputs.last_image) if i is not None]
        if inputs.last_image is not None and not self.takes_last_image:
            raise InputError(
                f"task {self._task} takes no last frame",
                remedy="leave the last image out, or use i2v-a14b",
            )
        if not given and self.image_use == "required":
            raise InputError(
                f"task {self._task} needs an image", remedy="give one with -i, or use t2v-a14b"
            )
        if inputs.image is not None and self.image_use == "never":
            raise InputError(
                f"task {self._task} takes no image",
                remedy="leave it out, or use i2v-a14b or ti2v-5b",
            )
        if given:
            from .image import check_image

            for image in given:
                check_image(image)

    @property
    def _task(self) -> str:
        return str(getattr(self.params, "task", self.name))

    def check_component(self, section: str) -> None:
        """Check the header of text encoder or VAE, reading no weights.

        Raises:
            WeightsError: The file is missing, damaged or of another model, or there is no
                tokenizer.
            ScheduleError: A VAE of another task, or tiles too small for it.
        """
        from .fits import check_text_encoder, check_vae

        spec, file = self._section(section), self._file(section)
        if section == "text_encoder":
            check_text_encoder(file, spec.tokenizer)
        else:
            strides = (self.z_dim, self.spatial_stride, self.temporal_stride)
            check_vae(file, spec.tile, self.name, strides)

    def check_variant(self, variant: ModelVariant, compute: str) -> None:
        """Check that a variant can serve this family and task, from headers alone.

        Raises:
            WeightsError: A model of another task, or for embeddings of another width.
            ScheduleError: A compute precision that it does not know.
        """
        from .fits import check_model
        from .precision import check_compute
        from .variant import WanVariant

        check_compute(compute)
        if isinstance(variant, WanVariant):
            encoder = self.components.text_encoder
            check_model(
                variant.sizes,
                str(variant.file),
                family=self.name,
                task=self._task,
                z_dim=self.z_dim,
                image_channels=self.image_use != "never" and self.image_as == "channels",
                text_encoder=encoder.file if encoder is not None else None,
            )

    def phase_warnings(
        self, phases: Mapping[str, tuple[VariantParams, Sequence[float]]]
    ) -> Sequence[str]:
        """One line where ``expert: low`` serves higher noise than ``expert: high``."""
        from .fits import swapped_experts

        return swapped_experts(phases)

    def component_files(self) -> Mapping[str, tuple[Path, ...]]:
        """Files of text encoder and VAE: of a folder, those that are read."""
        from .header import weight_files

        named = super().component_files()
        return {role: weight_files(file, role) for role, (file,) in named.items()}

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
        spec = self._section("text_encoder")
        text = embed_prompts(
            prompts,
            file=self._file("text_encoder"),
            precision=spec.precision,
            device=spec.device or device,
            tokenizer=spec.tokenizer,
        ).to(device)
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

        from .image import fit, to_tensor

        known = {n: i for n, i in ((0, image), (-1, last_image)) if i is not None}
        if not known:
            if self.image_use != "optional" or self.image_as == "frame":
                return None
            z, *rest = self.latent_shape(video)
            return torch.zeros(1, 4 + z, *rest, device=device)
        frames = 1 if self.image_as == "frame" else video.frames
        clip = torch.zeros(1, 3, frames, video.height, video.width)
        for number, given in known.items():
            clip[0, :, number] = fit(to_tensor(given), video.width, video.height) * 2.0 - 1.0
        encoded = self._by_vae(device, lambda vae: vae.encode(clip).to(device))
        if self.image_as == "frame":
            return encoded
        return image_condition(encoded, video.frames, tuple(known))

    def encode_video(self, frames: Iterable[Tensor], video: VideoSpec, device: str) -> Tensor:
        """Normalised latent ``[1, z, T, h, w]`` of a video, each frame fitted as images are."""
        import torch

        from .image import fit

        clip = torch.empty(1, 3, video.frames, video.height, video.width)
        for i, frame in enumerate(frames):
            clip[0, :, i] = fit(frame.permute(2, 0, 1), video.width, video.height) * 2.0 - 1.0
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

        spec = self._section("text_encoder")
        return load_text_encoder(
            self._file("text_encoder"),
            precision=spec.precision,
            device=spec.device or device,
            tokenizer=spec.tokenizer,
        )

    def open_vae(self, device: str) -> WanVAE:
        """The VAE, loaded where its section says."""
        from .vae import load_vae

        spec = self._section("vae")
        return load_vae(
            self._file("vae"),
            precision=spec.precision,
            device=spec.device or device,
            tile=spec.tile,
        )

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
