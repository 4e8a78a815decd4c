"""ModelFamily: from what a person gives (prompt, image, size) to what a model takes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gatekit.errors import InputError
from gatekit.execution import Execution, PhaseAsk, nothing_to_choose
from gatekit.params import FamilyParams, VariantParams

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.variant import Conditioning, ModelVariant, VariantFacts


@dataclass(frozen=True)
class VideoSpec:
    """Size of the video asked for: pixels, frames, frames a second."""

    width: int
    height: int
    frames: int
    fps: float


@dataclass(frozen=True)
class ComponentSpec:
    """A text encoder or a VAE: its file (absolute, None if not found) and where it runs.

    ``tile``, of a VAE: ``auto``, ``never``, or the pixels that a tile may measure each way.
    """

    file: Path | None
    precision: str = "fp32"
    device: str | None = None
    tokenizer: Path | None = None
    tile: Literal["auto", "never"] | int = "auto"


@dataclass(frozen=True)
class Components:
    """The parts of a family that are no denoising model."""

    text_encoder: ComponentSpec | None = None
    vae: ComponentSpec | None = None

    def given(self) -> Mapping[str, ComponentSpec]:
        """Those that there are, by section of the schedule."""
        parts = {"text_encoder": self.text_encoder, "vae": self.vae}
        return {section: part for section, part in parts.items() if part is not None}


@dataclass(frozen=True)
class Inputs:
    """What one video is made from.

    Attributes:
        prompt: What to show.
        negative_prompt: What to steer away from; None means the family's default.
        image: First frame: a path, a PIL image, or a float tensor ``[3, H, W]`` in [0, 1].
        last_image: Last frame, where the model can use one.
        seed: Seed of every noise draw.
        video: What a run with a ``start`` starts from: a path, or a float tensor
            ``[F, H, W, 3]`` in [0, 1] at the run's fps.
    """

    prompt: str = ""
    negative_prompt: str | None = None
    image: Any = None
    last_image: Any = None
    seed: int = 0
    video: Any = None


class ModelFamily(ABC):
    """One model family. Made at plan time: must not import torch nor read weights then.

    Class attributes:
        name: What schedules say in ``family.use``.
        Params: The other keys of ``family``, such as ``task``.
        path: Name of the noise path: ``flow`` or ``ve``.
        default_compute: Compute type where a schedule names none, by device kind.
        required: Schedule sections it needs among ``text_encoder``, ``vae``.
        takes_video: Whether a run may start from a video: ``encode_video`` is there.
    """

    name: ClassVar[str]
    Params: ClassVar[type[FamilyParams]] = FamilyParams
    path: ClassVar[str] = "flow"
    default_compute: ClassVar[Mapping[str, str]] = {"cpu": "fp32", "cuda": "bf16"}
    required: ClassVar[tuple[str, ...]] = ("text_encoder", "vae")
    takes_video: ClassVar[bool] = False

    def __init__(self, params: FamilyParams, components: Components) -> None:
        self.params, self.components = params, components

    @classmethod
    def model_dirs(cls) -> tuple[Path, ...]:
        """Folders of weight files that the family's plugin ships; searched last."""
        return ()

    @classmethod
    def component_facts(cls, file: Path) -> Mapping[str, VariantFacts]:
        """What a file can serve as besides a model: ``text_encoder``, ``vae``, ``lora`` -> facts.

        From its header alone; empty for a file that is neither. For ``gatekit inspect``.
        """
        return {}

    @classmethod
    def takes_model(cls, variant: ModelVariant) -> bool:
        """Whether a variant that opened can be a model of this family, as far as sizes tell.

        For ``gatekit inspect``; a derived family opens with the variants of the one it is
        derived from, but may be of one size.
        """
        return True

    @classmethod
    def parts_of(cls, path: Path) -> Sequence[Path]:
        """Files and folders of a model's root folder that can be inspected one by one."""
        return ()

    @classmethod
    def describe_file(cls, file: Path) -> Sequence[str]:
        """Lines about a file that no variant and no component can use; for ``gatekit inspect``."""
        return ()

    def default_video(self) -> Mapping[str, float]:
        """Values for keys of ``video`` that the schedule leaves out."""
        return {}

    @abstractmethod
    def check_video(self, video: VideoSpec) -> None:
        """Raise ScheduleError (without place; the plan adds it) for an impossible size."""

    def check_component(self, section: str) -> None:  # noqa: B027  (nothing unless a family says)
        """Check the header of ``text_encoder`` or ``vae``; called when its file was found.

        Raises:
            WeightsError: A file that is damaged or of another model.
            ScheduleError: A key of the section that cannot be; ``key`` says which.
        """

    def check_components(self) -> None:
        """Check every section that the family needs. Raises as ``check_component``."""
        for section in self.required:
            self.check_component(section)

    def check_variant(self, variant: ModelVariant, compute: str) -> None:  # noqa: B027
        """Check from its header that a variant can serve this family at this precision.

        Raises:
            WeightsError: A model of another task or size.
            ScheduleError: A compute precision that the family does not know.
        """

    def executions(
        self, asks: Sequence[PhaseAsk], video: VideoSpec, device: str
    ) -> Sequence[Execution]:
        """How each phase's model computes: attention backend, compiled or not.

        Asked at plan time, so without torch; ``device`` may be one that is not here.

        Raises:
            ScheduleError: What a phase asks for cannot be had here; ``key`` is the phase's
                number and the key: ``(0, "attention")``.
        """
        return nothing_to_choose(asks, self.name)

    def phase_warnings(
        self, phases: Mapping[str, tuple[VariantParams, Sequence[float]]]
    ) -> Sequence[str]:
        """Lines about phases that can run, but look like a mistake: swapped experts.

        Args:
            phases: By name, in order: the variant's parameters there, and the phase's sigmas.
        """
        return ()

    @abstractmethod
    def check_inputs(self, inputs: Inputs) -> None:
        """Raise InputError before anything heavy is loaded (an image missing or unreadable)."""

    @abstractmethod
    def latent_shape(self, video: VideoSpec) -> tuple[int, int, int, int]:
        """``(C, T, H, W)`` of the latent."""

    @abstractmethod
    def encode(self, inputs: Inputs, video: VideoSpec, device: str) -> Mapping[str, Conditioning]:
        """Conditionings by name (``positive``, ``negative``), each of batch 1.

        Loads what it needs, and frees it again before it returns.
        """

    def encode_video(self, frames: Iterable[Tensor], video: VideoSpec, device: str) -> Tensor:
        """The latent ``[1, C, T, H, W]`` of a video that a run starts from.

        Args:
            frames: ``video.frames`` of them in order, float32 ``[h, w, 3]`` in [0, 1], of the
                file's own size. Read once, as they come.
            video: Size they are to be fitted to.
            device: Where the latent goes.

        Raises:
            InputError: The family encodes none.
        """
        raise InputError(f"family {self.name!r} encodes no video", remedy="leave the video out")

    @abstractmethod
    def decode(self, latent: Tensor, video: VideoSpec, device: str) -> Tensor:
        """Latent ``[C, T, H, W]`` -> float32 video ``[frames, height, width, 3]`` in [0, 1]."""

    def video_of(self, shape: tuple[int, ...], fps: float) -> VideoSpec:
        """Size of the video that a latent of ``shape`` ``(C, T, H, W)`` decodes to.

        Asked where a latent is decoded without the schedule that made it.

        Raises:
            InputError: The family cannot tell, or the latent is of another VAE.
        """
        raise InputError(
            f"family {self.name!r} cannot tell a video's size from its latent",
            value=list(shape),
            remedy="give the schedule that made it",
        )

    def component_files(self) -> Mapping[str, tuple[Path, ...]]:
        """Section (``text_encoder``, ``vae``) -> the files of it that are read."""
        return {name: (part.file,) for name, part in self.components.given().items() if part.file}
