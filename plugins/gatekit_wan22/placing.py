"""How a Wan variant takes part in the placing of weights: told at plan time, followed in a run."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gatekit import (
    Carrier,
    ChunkPool,
    Footprint,
    ModelVariant,
    Placement,
    compute_capability,
)

from .fp8 import check_fp8, fp8_shapes
from .passes import MOST
from .sizes import expected_shapes
from .units import BYTES, Units, cut, footprint, wide_type

if TYPE_CHECKING:
    from .header import Header, TensorInfo
    from .lora.host import VariantLoras
    from .placed import PlacedModel
    from .sizes import TransformerSizes
    from .variant_params import WanVariantParams

SPARE = 4  # chunks of host memory that a model which computes leaves to the next


class Placing(ModelVariant):
    """A variant whose blocks can be brought in one by one, and streamed.

    Where a model is on a CPU and not streamed, or has LoRAs to merge, it is loaded as a whole.
    """

    params: WanVariantParams
    _loras: VariantLoras
    _loaded: tuple[str, str] | None
    _model: Any
    _placed: PlacedModel | None = None
    _placed_for: tuple[str, str, Placement] | None = None

    @abstractmethod
    def header(self) -> Header:
        """The file's header."""

    @property
    @abstractmethod
    def sizes(self) -> TransformerSizes:
        """The model's sizes."""

    @abstractmethod
    def tensors(self) -> Mapping[str, TensorInfo]:
        """The file's tensors by official name."""

    @abstractmethod
    def ready(self, device: str, compute: str) -> None:
        """Finish a model that is built: LoRAs, and what else is set on a model."""

    @property
    def streamed(self) -> bool:
        """Whether the model that is loaded is streamed, in part or as a whole."""
        return self._placed is not None and bool(self._placed.placement.streamed)

    @property
    def still(self) -> bool:
        """Whether the model that is loaded has all its weights where they stay."""
        return self._loaded is not None and (self._placed is None or self._placed.still)

    def footprint(self, compute: str, latent: tuple[int, int, int, int]) -> Footprint | None:
        """What the weights take, and graphs of passes that are replayed.

        None where they cannot be streamed: merged LoRAs.
        """
        if self._loras.uses and self.params.lora_mode == "merge":
            return None
        more = self._loras.resident_bytes() * BYTES[wide_type(compute)] // 2
        units, by_load = self._units(compute), bool(self._loras.uses)
        told = footprint(units, self.sizes, compute, latent, more, at_once=by_load)
        _, frames, height, width = latent
        if by_load or frames * (height // 2) * (width // 2) > MOST:
            return told
        return replace(told, fixed=told.fixed + told.working)  # a graph has its own of that

    def _units(self, compute: str) -> Units:
        return cut(self.tensors(), self.sizes, compute, kept=self.params.keep == "always")

    def _whole(self, device: str, placement: Placement) -> bool:
        """Whether this is for ``load``."""
        on_gpu = device.startswith("cuda")
        return not placement.streamed and (not on_gpu or bool(self._loras.uses))

    def prepare(
        self,
        device: str,
        compute: str,
        placement: Placement,
        pool: ChunkPool,
        ahead: Sequence[int] | None,
    ) -> None:
        """Begin to bring weights in; see ``ModelVariant.prepare``."""
        if self._whole(device, placement) or self._loaded is not None:
            return
        if self._placed is not None and (placement.streamed or not self._suits(
            device, compute, placement
        )):  # fmt: skip
            self.unload()  # it was to be read in another order
        if self._placed is None:
            self._begin(device, compute, placement, pool, ahead or ())
        if ahead is not None and self._placed is not None:
            self._placed.admit(ahead)

    def place(self, device: str, compute: str, placement: Placement, pool: ChunkPool) -> None:
        """Be ready to predict; see ``ModelVariant.place``."""
        if self._whole(device, placement):
            if self._placed is not None:
                self.unload()
            self.load(device, compute)
            return
        if self._loaded == (device, compute) and self._suits(device, compute, placement):
            return
        if self._loaded is not None or not self._suits(device, compute, placement):
            self.unload()
        if self._placed is None:
            self._begin(device, compute, placement, pool, ())
        assert self._placed is not None
        self._placed.carrier.most = max(1, pool.most - SPARE)
        try:
            self._placed.admit(None)
            self._model, self._loaded = self._placed.model, (device, compute)
            self.ready(device, compute)
        except BaseException:
            self.unload()
            raise

    def settle(self) -> None:
        """Stop what goes on in the background; a model that is streamed is unloaded."""
        if self._placed is not None and not (self._loaded and self._placed.rest()):
            self.unload()

    def drop_placed(self) -> str | None:
        """Forget what was placed; the device that it was on, None where nothing was."""
        if self._placed is None or self._placed_for is None:
            return None
        device = self._placed_for[0]
        self._placed.close()
        self._placed = self._placed_for = None
        return device

    def _suits(self, device: str, compute: str, placement: Placement) -> bool:
        if self._placed_for is None:
            return self._placed is None and self._loaded is None
        before = self._placed_for
        return before[:2] == (device, compute) and before[2].streamed == placement.streamed

    def _begin(
        self,
        device: str,
        compute: str,
        placement: Placement,
        pool: ChunkPool,
        ahead: Sequence[int],
    ) -> None:
        if compute == "fp8":
            check_fp8(device, compute_capability(device), fp8_shapes(expected_shapes(self.sizes)))
        from .mapped import MappedFile
        from .placed import PlacedModel

        mapped, units = MappedFile(self.header()), self._units(compute)
        carrier = Carrier(device, pool, max(1, pool.most // 2))
        try:
            self._placed = PlacedModel(mapped, units, self.sizes, device, placement, carrier, ahead)
        except BaseException:
            carrier.close()
            raise
        self._placed_for = device, compute, placement
        places = [(file, 0, file.stat().st_size) for file in self.header().files]
        carrier.expect(places)
