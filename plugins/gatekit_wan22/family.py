"""The family ``wan22``: its tasks, and what can be checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from gatekit import (
    Components,
    Execution,
    FamilyParams,
    InputError,
    Inputs,
    ModelVariant,
    PhaseAsk,
    ScheduleError,
    VariantFacts,
    VariantParams,
    VideoSpec,
)

from .coding import WanCoding


class WanFamilyParams(FamilyParams):
    """Keys of ``family`` besides ``use``."""

    task: Literal["t2v-a14b", "i2v-a14b", "ti2v-5b"] = Field(
        "t2v-a14b",
        description="text to video, image to video, or, with the 5B model, either",
    )


class WanFamily(WanCoding):
    """Wan 2.2; a family of the same architecture subclasses it.

    Attributes, of the class but where the task ``ti2v-5b`` sets its own:
        size_multiple: What width and height must be multiples of.
        video: Values for keys of ``video`` left out.
    """

    name: ClassVar[str] = "wan22"
    Params: ClassVar[type[FamilyParams]] = WanFamilyParams
    path: ClassVar[str] = "flow"
    takes_video: ClassVar[bool] = True
    size_multiple: int = 16
    video: Mapping[str, float] = {"width": 832, "height": 480, "frames": 81, "fps": 16}

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
        both = (("-i", inputs.image), ("--last-image", inputs.last_image))
        given = [(option, image) for option, image in both if image is not None]
        if inputs.last_image is not None and not self.takes_last_image:
            raise InputError(
                f"task {self._task} takes no last frame",
                remedy="leave --last-image out; of Wan's tasks i2v-a14b takes one",
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

            for option, image in given:
                try:
                    check_image(image)
                except InputError as error:
                    where = f"{option}: {error.where}" if error.where else option
                    raise InputError(
                        error.message, where=where, value=error.value, remedy=error.remedy
                    ) from error

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

    def executions(
        self, asks: Sequence[PhaseAsk], video: VideoSpec, device: str
    ) -> Sequence[Execution]:
        """Attention backend and compilation of each phase; see ``ModelFamily.executions``."""
        from .executions import executions

        _, frames, height, width = self.latent_shape(video)
        tokens, frame = frames * (height // 2) * (width // 2), self.image_as == "frame"
        return executions(asks, tokens, device, first_frame=frame)

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
