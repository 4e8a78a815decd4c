"""The variant ``gguf``: weights in GGML blocks, decoded a matrix at a time or kept decoded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from gatekit import VariantParams, WeightsError

from .header import Header
from .variant import WanVariant, WanVariantParams

ARCHITECTURES = (None, "wan", "pig", "cow")
_MIX = re.compile(r"(?<![A-Za-z0-9])(I?Q[0-9]_(?:K_[SML]|K|[01]|XXS|XS|S|M|NL))(?![A-Za-z0-9])")


class GGUFParams(WanVariantParams):
    """Keys of a ``gguf`` variant."""

    keep: Literal["auto", "always", "never"] = Field(
        "auto",
        description="hold matrices decoded: auto does where they take a quarter of free memory",
    )


class GGUFVariant(WanVariant):
    """A Wan model in a GGUF file; every tensor may be of a type of its own."""

    name: ClassVar[str] = "gguf"
    Params: ClassVar[type[VariantParams]] = GGUFParams
    file_format: ClassVar[str] = "gguf"
    params: GGUFParams  # pyright: ignore[reportIncompatibleVariableOverride]

    def _check_types(self, header: Header) -> None:
        from .dequantise import readable_types

        architecture = header.metadata.get("general.architecture")
        if architecture not in ARCHITECTURES:
            raise WeightsError(
                f"architecture '{str(architecture)[:40]}', where a Wan model has 'wan'",
                where=str(header.path),
                remedy="give the GGUF of a Wan diffusion model",
            )
        readable = readable_types()
        for tensor in header.tensors.values():
            if tensor.type not in readable:
                raise WeightsError(
                    f"'{tensor.name}' is {tensor.type}, which cannot be decoded",
                    where=str(header.path),
                    remedy="use a file quantised to K, legacy or IQ types",
                )

    def storage(self, header: Header) -> str:
        """The mix that the file's name states, if its tensors bear it out, else the main type."""
        main = super().storage(header)
        named = _MIX.search(header.path.stem.upper())
        if named and (named[1] == main or named[1].startswith(main + "_")):
            return named[1]
        return main

    def resident_bytes(self, header: Header) -> int:
        """The blocks, the rest in bf16, and one decoded matrix; all of it decoded if kept."""
        if self.params.keep == "always":
            return 2 * header.parameters
        tensors = header.tensors.values()
        stored = sum(t.nbytes if t.quantised else 2 * t.count for t in tensors)
        return stored + 2 * max((t.count for t in tensors if t.quantised), default=0)

    def load_options(self) -> Mapping[str, Any]:
        """``keep``."""
        return {"keep": self.params.keep}
