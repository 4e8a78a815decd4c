"""Built-in gatekit plugin: the Wan 2.2 family, its weight files, VAE and text encoder.

Names are imported on first use, so that planning a schedule needs neither torch nor
diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gatekit import hookimpl

if TYPE_CHECKING:
    from gatekit import Check, ModelFamily, ModelVariant

    from .conditioning import WanConditioning, frame_mask, image_condition, pad_text
    from .family import WanFamily, WanFamilyParams
    from .header import Header, TensorInfo, read_header
    from .sizes import TransformerSizes, read_sizes
    from .text_encoder import WanTextEncoder, load_text_encoder
    from .vae import WanVAE, load_vae
    from .variant import WanVariant
    from .variant_gguf import GGUFVariant
    from .variant_params import WanVariantParams
    from .variant_safetensors import PthVariant, SafetensorsVariant

_HOME = {
    "conditioning": ("WanConditioning", "frame_mask", "image_condition", "pad_text"),
    "family": ("WanFamily", "WanFamilyParams"),
    "header": ("Header", "TensorInfo", "read_header"),
    "sizes": ("TransformerSizes", "read_sizes"),
    "text_encoder": ("WanTextEncoder", "load_text_encoder"),
    "vae": ("WanVAE", "load_vae"),
    "variant": ("WanVariant",),
    "variant_gguf": ("GGUFVariant",),
    "variant_params": ("WanVariantParams",),
    "variant_safetensors": ("PthVariant", "SafetensorsVariant"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "GGUFVariant",
    "Header",
    "PthVariant",
    "SafetensorsVariant",
    "TensorInfo",
    "TransformerSizes",
    "WanConditioning",
    "WanFamily",
    "WanFamilyParams",
    "WanTextEncoder",
    "WanVAE",
    "WanVariant",
    "WanVariantParams",
    "frame_mask",
    "gatekit_register_checks",
    "gatekit_register_families",
    "gatekit_register_variants",
    "image_condition",
    "load_text_encoder",
    "load_vae",
    "pad_text",
    "read_header",
    "read_sizes",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


@hookimpl
def gatekit_register_families() -> list[type[ModelFamily]]:
    """The family ``wan22``."""
    from .family import WanFamily

    return [WanFamily]


@hookimpl
def gatekit_register_variants() -> list[type[ModelVariant]]:
    """``gguf``, ``safetensors`` and ``pth`` for the family ``wan22``."""
    from .variant_gguf import GGUFVariant
    from .variant_safetensors import PthVariant, SafetensorsVariant

    return [GGUFVariant, SafetensorsVariant, PthVariant]


@hookimpl
def gatekit_register_checks() -> list[Check]:
    """Lines of ``gatekit doctor``: attention backends, Triton."""
    from .doctor import checks

    return checks()
