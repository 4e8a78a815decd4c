"""One expert's weights: what the GGUF and the safetensors variant share."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from gatekit import Body, Execution, InputError, VariantParams, compute_capability

from .conditioning import WanConditioning
from .described import Described
from .fp8 import check_fp8, fp8_shapes
from .lora.host import strengths
from .passes import Passes
from .placing import Placing
from .precision import COMPUTE_TYPES, check_compute
from .prediction import predicted
from .sizes import expected_shapes
from .variant_params import WanVariantParams

if TYPE_CHECKING:
    from torch import Tensor


class WanVariant(Described, Placing):
    """A Wan transformer in one file, or in several that are one model.

    Class attributes:
        compute_types: Compute precisions that ``load`` takes.
        image_optional: Whether a model with image channels may go without an image, its
            mask and condition then being zeros. Wan's own image-to-video models may not.
    """

    compute_types: ClassVar[tuple[str, ...]] = COMPUTE_TYPES
    image_optional: ClassVar[bool] = False
    in_blocks: ClassVar[bool] = True

    def __init__(self, params: VariantParams) -> None:
        super().__init__(params)
        self._model: Any = None
        self._loaded: tuple[str, str] | None = None
        self._uses = self.params.loras  # with the strengths of the present phase
        self._attached: Any = None
        self._execution = Execution()
        self._passes = Passes()

    def adjust(self, params: VariantParams) -> None:
        """Use the strengths of these parameters; the weights stay where they are."""
        assert isinstance(params, WanVariantParams)
        self._uses = params.loras
        if self._attached is not None:
            self._attached.set(strengths(self._uses))

    def configure(self, execution: Execution) -> None:
        """Attention, compilation, replaying from now on; what is compiled stays so."""
        self._execution = execution
        if not execution.replayed:
            self._passes.forget()
        if self._model is not None:
            from .attention import use_backend
            from .compiling import use_compiled

            use_backend(self._model, execution.attention)
            use_compiled(self._model, execution.compiled)

    @property
    def loaded(self) -> tuple[str, str] | None:
        """(device, compute) while loaded, else None."""
        return self._loaded

    @property
    def module(self) -> Any:
        """The torch module while loaded, else None."""
        return self._model

    @property
    def graphs(self) -> int:
        """Number of passes that were recorded and are replayed."""
        return self._passes.graphs

    def load_options(self) -> Mapping[str, Any]:
        """Keyword arguments for ``load_transformer``."""
        return {"keep": self.params.keep}

    def load(self, device: str, compute: str) -> None:
        """Build the model on ``device``; ScheduleError for a precision it cannot compute in."""
        check_compute(compute)
        if self._loaded == (device, compute):
            return
        if compute == "fp8":
            check_fp8(device, compute_capability(device), fp8_shapes(expected_shapes(self.sizes)))
        self.unload()
        from .mapped import MappedFile
        from .model import load_transformer
        from .precision import model_dtype

        self._model = load_transformer(
            MappedFile(self.header()),
            self.tensors(),
            self.sizes,
            dtype=model_dtype(compute),
            device=device,
            fp8=compute == "fp8",
            **self.load_options(),
        )
        self._loaded = (device, compute)
        try:
            self.ready(device, compute)
        except BaseException:
            self.unload()
            raise

    def ready(self, device: str, compute: str) -> None:
        """Finish a model that is built: LoRAs, attention backend, compilation."""
        self._attach(device, compute)
        self.configure(self._execution)

    def _attach(self, device: str, compute: str) -> None:
        """Put the LoRAs on the model that was loaded."""
        if not self._loras.uses:
            return
        from .lora.attach import Target
        from .mapped import MappedFile
        from .precision import model_dtype

        target = Target(
            self._model,
            MappedFile(self.header()),
            self.tensors(),
            expected_shapes(self.sizes),
            model_dtype(compute),
            device,
        )
        fixed = len({strengths(p.loras) for p in self.phases if isinstance(p, WanVariantParams)})
        mode = "side" if self.streamed else self.params.lora_mode  # what is streamed stays as it is
        self._attached = self._loras.attach(target, self.sizes, mode, fixed < 2)
        self._attached.set(strengths(self._uses))

    def unload(self) -> None:
        """Drop the model and give its memory back."""
        self._passes.forget()  # graphs hold addresses of the weights
        placed_on = self.drop_placed()
        if self._loaded is None and placed_on is None:
            return
        from .compiling import use_compiled
        from .memory import give_back, give_back_cached
        from .scratch import release

        device = self._loaded[0] if self._loaded is not None else placed_on or "cpu"
        if self._model is not None:
            use_compiled(self._model, False)
        self._model = self._loaded = self._attached = None
        release()
        # A search for garbage takes longer than a switch may.
        (give_back if placed_on is None else give_back_cached)(device)

    def through(self, x: Tensor, sigma: float, conditioning: WanConditioning, body: Body) -> Tensor:
        """``velocity`` with the transformer's blocks run by ``body``."""
        from .chain import chained

        with chained(self._model, body) if self._loaded else contextlib.nullcontext():
            return self.velocity(x, sigma, conditioning)

    def timestep(self, sigma: float) -> float:
        """The model's own time of a noise level."""
        time = 1000.0 * sigma
        return float(int(time)) if self.params.timesteps == "integer" else time

    def velocity(self, x: Tensor, sigma: float, conditioning: WanConditioning) -> Tensor:
        """The model's velocity n - x0; see ``ModelVariant.velocity``.

        A first frame that is known is put into the model's input, its tokens get timestep 0,
        and its velocity is (x - first frame) / sigma, whatever the model says there.

        Raises:
            InputError: Channels, image or sizes do not fit the model.
        """
        if self._loaded is None:
            raise InputError("the model is not loaded", remedy="call load(device, compute) first")
        device, compute = self._loaded
        fixed = self.still and self._attached is None
        how = self._execution if fixed else None
        return predicted(
            partial(self._passes.run, self._model, device, how),
            self.sizes,
            x,
            sigma,
            conditioning,
            time=self.timestep(sigma),
            device=device,
            compute=compute,
            image_optional=self.image_optional,
            where=self.file.name,
        )
