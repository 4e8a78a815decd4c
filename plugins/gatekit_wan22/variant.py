"""One expert's weights: what the GGUF and the safetensors variant share."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gatekit import (
    AdjustParams,
    Body,
    Execution,
    InputError,
    VariantFacts,
    VariantParams,
    WeightsError,
    compute_capability,
)

from .conditioning import WanConditioning
from .folders import is_shard
from .fp8 import check_fp8, fp8_shapes
from .header import Header, TensorInfo, read_header
from .lora.host import NAMED, VariantLoras, named_otherwise, strengths
from .lora.params import WanAdjust, with_strengths
from .model_input import check_first_frame, check_text, times, with_image
from .placing import Placing
from .precision import COMPUTE_TYPES, check_compute
from .sizes import (
    TransformerSizes,
    check_types,
    expected_shapes,
    official_tensors,
    read_sizes,
)
from .survey import title_of
from .variant_params import WanVariantParams
from .weights import resident_in_16_bits, resident_in_fp8, storage_name

if TYPE_CHECKING:
    from torch import Tensor

_TITLES = ("general.name", "general.basename", "general.finetune", "modelspec.title")


class WanVariant(Placing):
    """A Wan transformer in one file, or in several that are one model.

    Class attributes:
        file_format: ``gguf``, ``safetensors`` or ``pth``, checked by the first bytes.
        compute_types: Compute precisions that ``load`` takes.
        image_optional: Whether a model with image channels may go without an image, its
            mask and condition then being zeros. Wan's own image-to-video models may not.
    """

    family: ClassVar[str] = "wan22"
    Params: ClassVar[type[VariantParams]] = WanVariantParams
    file_fields: ClassVar[tuple[str, ...]] = ("file", "loras.file")
    Adjust: ClassVar[type[AdjustParams]] = WanAdjust
    file_format: ClassVar[str]
    compute_types: ClassVar[tuple[str, ...]] = COMPUTE_TYPES
    image_optional: ClassVar[bool] = False
    in_blocks: ClassVar[bool] = True
    params: WanVariantParams

    def __init__(self, params: VariantParams) -> None:
        super().__init__(params)
        self._header: Header | None = None
        self._sizes: TransformerSizes | None = None
        self._model: Any = None
        self._loaded: tuple[str, str] | None = None
        self._loras = VariantLoras(self.params.loras, self.params.expert)
        self._uses = self.params.loras  # with the strengths of the present phase
        self._attached: Any = None
        self._execution = Execution()

    @property
    def file(self) -> Path:
        """The weight file."""
        return self.params.file

    def header(self) -> Header:
        """The file's header, read once."""
        if self._header is None:
            header = read_header(self.file, role="transformer", expert=self.params.expert)
            self._sizes = read_sizes(header)  # what it is, before what format it has
            self._check_format(header.format)
            self._check_types(header)
            self._header = header
        return self._header

    def _check_format(self, found: str) -> None:
        if found != self.file_format:
            raise WeightsError(
                f"a {found} file", where=str(self.file), remedy=f"write 'use: {found}' for it"
            )

    def _check_types(self, header: Header) -> None:
        """Raise WeightsError for a tensor type that cannot be read."""
        check_types(header, header.tensors)

    @property
    def sizes(self) -> TransformerSizes:
        """The model's sizes, from the header."""
        self.header()
        assert self._sizes is not None
        return self._sizes

    def tensors(self) -> dict[str, TensorInfo]:
        """The file's tensors by official name."""
        return official_tensors(self.header())

    def storage(self, header: Header) -> str:
        """Name of the type most weights are stored in; ``_scaled`` where they have scales."""
        return storage_name(header.tensors)

    def facts(self) -> VariantFacts:
        """Facts from the header; ``resident_bytes`` is for computing in bf16."""
        header, sizes = self.header(), self.sizes
        task = "image-to-video" if sizes.image_channels else "text-to-video"
        if sizes.takes_first_frame:
            task = "text-to-video, with or without a first frame"
        published = sizes.published or "no published size; a small or pruned model"
        details = {"model": str(sizes), "known as": published, "task": task}
        if title := title_of(header):
            details["metadata"] = title
        if self.params.expert:
            details["expert"] = self.params.expert
        elif "A14B" in published and not self.suggested(self.file):
            details["expert"] = "its name does not say; A14B needs 'expert: high' or 'expert: low'"
        details |= self._loras.details()
        loras = self._loras.resident_bytes()
        return VariantFacts(
            storage=self.storage(header),
            file_bytes=header.file_bytes,
            parameters=header.parameters,
            bits_per_weight=8.0 * header.tensor_bytes / header.parameters,
            resident_bytes=resident_in_16_bits(header.tensors, self.params.keep) + loras,
            resident_by_compute={"fp8": resident_in_fp8(self.tensors()) + loras},
            types=header.types,
            details=details,
            warnings=tuple(self._warnings()),
        )

    def _warnings(self) -> list[str]:
        """What contradicts ``expert``: the name of the file or folder, or a title inside it."""
        expert, header = self.params.expert, self.header()
        titles = {key: str(header.metadata[key]) for key in _TITLES if key in header.metadata}
        texts = {f"{header.path.name} is named": header.path.name} | {
            f"{header.path.name}: its metadata '{key}' says": title for key, title in titles.items()
        }
        others = {found: named_otherwise(text, expert) for found, text in texts.items()}
        return [
            *(f"{a} a {b}-noise model, but 'expert' is {expert}" for a, b in others.items() if b),
            *self._loras.warnings(self.sizes),
        ]

    @classmethod
    def suggested(cls, file: Path) -> Mapping[str, str]:
        """``expert``, where the file's name says which it is."""
        pair = ("transformer", "transformer_2")  # diffusers' folders; one alone is no expert
        if file.name in pair and all((file.parent / name).is_dir() for name in pair):
            return {"expert": "low" if file.name == pair[1] else "high"}
        named = [e for e, pattern in NAMED.items() if pattern.search(file.name.lower())]
        return {"expert": named[0]} if len(named) == 1 else {}

    def files(self) -> tuple[Path, ...]:
        """The weight file, or every shard of a folder; and those of LoRAs."""
        found = (self.file,)
        if self.file.is_dir() or is_shard(self.file):
            with contextlib.suppress(WeightsError):  # facts() says what is wrong
                found = self.header().files
        return (*found, *self._loras.paths())

    def beside(self) -> Mapping[Path, str]:
        """The LoRAs, with their strengths."""
        return {use.file: f"LoRA, strength {use.strength:g}" for use in self.params.loras}

    def adjusted(self, adjust: AdjustParams) -> VariantParams:
        """The parameters with the strengths of a phase; ScheduleError for an unknown LoRA."""
        assert isinstance(adjust, WanAdjust)
        loras = with_strengths(self.params.loras, adjust.loras)
        return self.params.model_copy(update={"loras": loras})

    def adjust(self, params: VariantParams) -> None:
        """Use the strengths of these parameters; the weights stay where they are."""
        assert isinstance(params, WanVariantParams)
        self._uses = params.loras
        if self._attached is not None:
            self._attached.set(strengths(self._uses))

    def configure(self, execution: Execution) -> None:
        """Attention backend and compilation from now on; what is compiled stays so."""
        self._execution = execution
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
        import torch

        from .precision import model_dtype

        if self._loaded is None:
            raise InputError("the model is not loaded", remedy="call load(device, compute) first")
        device, dtype = self._loaded[0], model_dtype(self._loaded[1])
        first, where, time = conditioning.first_frame, self.file.name, self.timestep(sigma)
        check_first_frame(x, first, self.sizes, where)
        known = conditioning.with_known(x)
        given = with_image(
            known, conditioning.image, self.sizes, optional=self.image_optional, where=where
        ).to(device, dtype)
        text = conditioning.text
        check_text(text, x.shape[0], self.sizes.text_dim)
        text = text.to(device, dtype).expand(x.shape[0], -1, -1)
        at = times(x, time, first, device)
        (out,) = self._model(given, at, text, return_dict=False)
        out = out.to(x.device, torch.float32)
        if first is not None:
            frames = first.shape[2]
            out[:, :, :frames] = (x[:, :, :frames] - first.to(x.device)) / sigma
        return out
