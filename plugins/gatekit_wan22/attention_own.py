"""Attention backends of gatekit's own, which diffusers' list does not have and cannot take."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from . import attention_flash4, attention_fp8

if TYPE_CHECKING:
    from torch import Tensor

OWN: dict[str, Any] = {module.NAME: module for module in (attention_fp8, attention_flash4)}


@cache
def dispatched() -> None:
    """Let diffusers' blocks of Wan find them by their names."""
    from diffusers.models.transformers import transformer_wan

    for backend in OWN.values():
        backend.operator()
    module: Any = transformer_wan
    inner = module.dispatch_attention_fn

    def dispatch(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        if own := OWN.get(options.get("backend", "")):
            return own.attend(query, key, value)
        return inner(query, key, value, **options)

    module.dispatch_attention_fn = dispatch
