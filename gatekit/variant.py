"""ModelVariant: one set of weights at one precision, opened lazily.

A variant is made from its parameters at plan time, when it may read headers but no
weights, and must not import torch. ``load`` brings it to a device, ``velocity`` evaluates
it, ``unload`` gives all of its memory back. A variant can be loaded again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gatekit.errors import InputError
from gatekit.execution import Execution
from gatekit.params import AdjustParams, VariantParams

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.chunks import ChunkPool
    from gatekit.placement import Footprint, Placement
    from gatekit.stepcache import Body


@dataclass(frozen=True)
class Precision:
    """How weights are stored and what the arithmetic runs in.

    Attributes:
        storage: ``Q2_K``, ``Q5_K_S``, ``fp16``, ... as the file has them.
        compute: one of ``fp32``, ``bf16``, ``fp16``, ``fp8``.
    """

    storage: str
    compute: str


class Conditioning:
    """What a model is conditioned on besides ``(x, sigma)``; each family subclasses it."""

    def with_known(self, denoised: Tensor) -> Tensor:
        """Put what is known of x0 into a prediction of it; called after guidance.

        Whatever the sampler, a part that is known stays on the path from noise to itself.
        """
        return denoised


@dataclass(frozen=True)
class VariantFacts:
    """What a weight file's header tells, without reading weights.

    Attributes:
        storage: Name of the weights' precision, ``Q2_K`` or ``fp16``.
        file_bytes: Size on disk.
        parameters: Number of weights.
        bits_per_weight: Mean stored bits a weight.
        resident_bytes: Expected memory when loaded to compute in 16 bits.
        types: Tensor type name -> number of tensors.
        details: Family-specific facts, for people (``model: wan 6 layers x 256``).
        warnings: Oddities worth a line, such as a file name that contradicts the expert.
        yaml: How a schedule names the file, where the name of its section does not tell.
        resident_by_compute: Expected memory when loaded for other compute types, where known.
    """

    storage: str
    file_bytes: int
    parameters: int
    bits_per_weight: float
    resident_bytes: int
    types: Mapping[str, int] = field(default_factory=dict[str, int])
    details: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()
    yaml: str = ""
    resident_by_compute: Mapping[str, int] = field(default_factory=dict[str, int])

    def resident_for(self, compute: str) -> int:
        """Expected memory when loaded for a compute type; fp32 takes twice that of 16 bits."""
        default = self.resident_bytes * (2 if compute == "fp32" else 1)
        return self.resident_by_compute.get(compute, default)


class ModelVariant(ABC):
    """Weights in one storage format, for one family.

    Class attributes:
        name: What schedules say in ``variants.*.use``: ``gguf``, ``safetensors``.
        family: Name of the family it belongs to; a family derived from that one
            (by subclassing) may use it too.
        Params: Its parameters. File-valued fields are named in ``file_fields``.
        file_fields: Dotted fields of Params that hold file names, through lists too
            (``loras.file``); the plan replaces them by absolute paths (a missing file is
            reported there, once).
        Adjust: What a phase may change, without loading the weights again, in ``adjust``.
        in_blocks: Whether it has ``through``, which step caches need.

    Attributes:
        params: Its parameters.
        phases: Its parameters as every phase of the plan has them, for a variant that
            prepares for what it will have to change; empty where there is no plan.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    Params: ClassVar[type[VariantParams]] = VariantParams
    file_fields: ClassVar[tuple[str, ...]] = ("file",)
    Adjust: ClassVar[type[AdjustParams]] = AdjustParams
    in_blocks: ClassVar[bool] = False
    phases: tuple[VariantParams, ...] = ()

    def __init__(self, params: VariantParams) -> None:
        self.params = params

    def adjusted(self, adjust: AdjustParams) -> VariantParams:
        """The parameters in a phase that says ``adjust``: what predicts there, and its field.

        Called at plan time, where ``adjust`` changes something. Raises ScheduleError (without
        place; the plan adds it) for what it cannot be.
        """
        return self.params

    def adjust(self, params: VariantParams) -> None:
        """Predict as ``params`` say from now on: those of ``adjusted``, or its own.

        What is loaded changes in place; what is not will be loaded so. Called before each
        phase, so it must cost nothing where nothing changes. Raises InputError for a variant
        whose predictions are fixed.
        """
        if params != self.params:
            raise InputError(
                f"variant {self.name!r} cannot change while loaded",
                remedy="use two variants, or implement 'adjust'",
            )

    def configure(self, execution: Execution) -> None:
        """Compute in this way from now on; what the family's ``executions`` chose.

        Called before each phase, loaded or not, so it must cost nothing where nothing changes.
        Raises InputError for a variant that computes in one way only.
        """
        if execution.attention or execution.compiled or execution.replayed:
            raise InputError(
                f"variant {self.name!r} computes in one way only",
                remedy="implement 'configure', or let its family's 'executions' choose nothing",
            )

    @classmethod
    def suggested(cls, file: Path) -> Mapping[str, str]:
        """Keys of a variant that a file's name suggests; for ``gatekit inspect``."""
        return {}

    @abstractmethod
    def facts(self) -> VariantFacts:
        """Read the header(s). Raises WeightsError for a file that is no such model."""

    @abstractmethod
    def files(self) -> tuple[Path, ...]:
        """Every file whose bytes decide what this variant predicts (weights, LoRAs)."""

    def beside(self) -> Mapping[Path, str]:
        """What those of ``files`` are that are not the model's weights, in a few words."""
        return {}

    @abstractmethod
    def load(self, device: str, compute: str) -> None:
        """Bring the weights to ``device``; idempotent for the same arguments."""

    def footprint(self, compute: str, latent: tuple[int, int, int, int]) -> Footprint | None:
        """What the weights take when loaded, block by block; None for a model that is one piece.

        Asked at plan time, from the header. A variant that tells can be streamed: it implements
        ``prepare``, ``place`` and ``settle`` too.

        Args:
            compute: What the arithmetic runs in.
            latent: ``(C, T, H, W)`` of what it will run on.
        """
        return None

    def prepare(
        self,
        device: str,
        compute: str,
        placement: Placement,
        pool: ChunkPool,
        ahead: Sequence[int] | None,
    ) -> None:
        """Begin to bring weights in while another model computes; ``place`` or ``unload`` follows.

        Returns soon; what it begins goes on in the background.

        Args:
            device: Where to.
            compute: What the arithmetic will run in.
            placement: What will be resident and what streamed.
            pool: Host memory to read through.
            ahead: Blocks that may be on the device already; None: nothing may.
        """
        return

    def place(self, device: str, compute: str, placement: Placement, pool: ChunkPool) -> None:
        """Be ready to predict, with the weights placed so; ``loaded`` tells so afterwards.

        What is still on its way arrives while the first blocks compute.
        """
        self.load(device, compute)

    def settle(self) -> None:
        """A run is over: stop what goes on in the background. What needs it is unloaded."""
        return

    @abstractmethod
    def unload(self) -> None:
        """Give back every byte that ``load`` took; idempotent."""

    @property
    @abstractmethod
    def loaded(self) -> tuple[str, str] | None:
        """(device, compute) while loaded, else None."""

    @abstractmethod
    def velocity(self, x: Tensor, sigma: float, conditioning: Any) -> Tensor:
        """The model's velocity, n - x0 on a rectified flow.

        Args:
            x: State ``[B, C, T, H, W]``, float32.
            sigma: Noise level in (0, 1], after shift.
            conditioning: The family's Conditioning, of batch B or 1.

        Returns:
            Velocity, float32, same shape, on x's device.
        """

    def through(self, x: Tensor, sigma: float, conditioning: Any, body: Body) -> Tensor:
        """``velocity``, with the model's chain of blocks run by ``body``.

        Args:
            x: As for ``velocity``.
            sigma: As for ``velocity``.
            conditioning: As for ``velocity``.
            body: Given the blocks and the hidden states before the first, returns those after
                the last; called once.

        Raises:
            InputError: The variant is no chain of blocks.
        """
        raise InputError(
            f"variant {self.name!r} does not let its blocks be run one by one",
            remedy="take the step cache out, or implement 'through'",
        )
