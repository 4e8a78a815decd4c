"""What one expert's weight file is, as far as its header and its name tell."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from gatekit import AdjustParams, ModelVariant, VariantFacts, VariantParams, WeightsError

from .folders import is_shard
from .header import Header, TensorInfo, read_header
from .lora.host import NAMED, VariantLoras, named_otherwise
from .lora.params import WanAdjust, with_strengths
from .sizes import TransformerSizes, check_types, official_tensors, read_sizes
from .survey import title_of
from .variant_params import WanVariantParams
from .weights import resident_in_16_bits, resident_in_fp8, storage_name

_TITLES = ("general.name", "general.basename", "general.finetune", "modelspec.title")


class Described(ModelVariant):
    """A Wan transformer that is known by its header; loads nothing.

    Class attributes:
        file_format: ``gguf``, ``safetensors`` or ``pth``, checked by the first bytes.
    """

    family: ClassVar[str] = "wan22"
    Params: ClassVar[type[VariantParams]] = WanVariantParams
    file_fields: ClassVar[tuple[str, ...]] = ("file", "loras.file")
    Adjust: ClassVar[type[AdjustParams]] = WanAdjust
    file_format: ClassVar[str]
    params: WanVariantParams

    def __init__(self, params: VariantParams) -> None:
        super().__init__(params)
        self._header: Header | None = None
        self._sizes: TransformerSizes | None = None
        self._loras = VariantLoras(self.params.loras, self.params.expert)

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
        takes = "text"
        if sizes.image_channels:
            takes = f"text, and {sizes.image_channels} channels of image and mask"
        elif sizes.takes_first_frame:
            takes = "text, and a first frame in its latent"
        published = sizes.published or "no published size; a small or pruned model"
        details = {"model": str(sizes), "known as": published, "takes": takes}
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
