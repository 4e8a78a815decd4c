"""The variant ``gguf``: weights in GGML blocks, decoded a matrix at a time or kept decoded."""

from __future__ import annotations

import re
from typing import ClassVar

from gatekit import WeightsError

from .header import Header
from .variant import WanVariant

ARCHITECTURES = (None, "wan", "pig", "cow")
_MIX = re.compile(r"(?<![A-Za-z0-9])(I?Q[0-9]_(?:K_[SML]|K|[01]|XXS|XS|S|M|NL))(?![A-Za-z0-9])")


class GGUFVariant(WanVariant):
    """A Wan model in a GGUF file; every tensor may be of a type of its own."""

    name: ClassVar[str] = "gguf"
    file_format: ClassVar[str] = "gguf"

    def _check_types(self, header: Header) -> None:
        architecture = header.metadata.get("general.architecture")
        if architecture not in ARCHITECTURES:
            raise WeightsError(
                f"architecture '{str(architecture)[:40]}', where a Wan model has 'wan'",
                where=str(header.path),
                remedy="give the GGUF of a Wan diffusion model",
            )
        super()._check_types(header)

    def storage(self, header: Header) -> str:
        """The mix that the file's name states, if its tensors bear it out, else the main type."""
        main = super().storage(header)
        named = _MIX.search(header.path.name.upper())
        if named and (named[1] == main or named[1].startswith(main + "_")):
            return named[1]
        return main
