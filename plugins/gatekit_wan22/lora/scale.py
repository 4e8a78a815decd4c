"""alpha / rank: from the file's tensors, else from what its writer noted beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit import WeightsError

from .file import Change, LoraFile

if TYPE_CHECKING:
    from ..mapped import MappedFile

CONFIG = "adapter_config.json"
_LONGEST = 1 << 20  # bytes of it; PEFT writes about a thousand
_TYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8",
}  # fmt: skip


def config_file(lora: LoraFile) -> Path | None:
    """PEFT's ``adapter_config.json`` beside ``adapter_model.safetensors``, which holds alpha."""
    beside = lora.path.with_name(CONFIG)
    return beside if lora.path.stem == "adapter_model" and beside.is_file() else None


def noted(lora: LoraFile) -> tuple[float | None, bool]:
    """``(alpha, whether it is over sqrt(rank))`` as metadata or PEFT's config has them.

    diffusers keeps PEFT's configuration as JSON under ``lora_adapter_metadata``. Files of
    kohya's layout carry alpha as tensors, which win. None: alpha is the rank.

    Raises:
        WeightsError: A configuration that cannot be read, or one alpha for each pattern.
    """
    where = config_file(lora)
    text = lora.header.metadata.get("lora_adapter_metadata") if where is None else None
    try:
        if where is not None:
            with where.open("rb") as stream:
                text = stream.read(_LONGEST).decode("utf-8")
        entries: Any = json.loads(text) if isinstance(text, str) else {}
        plain = {key.rpartition(".")[2]: value for key, value in entries.items()}
        alphas = {str(v) for key, v in entries.items() if key.rpartition(".")[2] == "lora_alpha"}
        if plain.get("alpha_pattern") or len(alphas) > 1:
            raise WeightsError(
                "more than one alpha in its configuration",
                where=str(where or lora.path),
                remedy="save it with one alpha, or with alpha as tensors",
            )
        given = plain.get("lora_alpha")
        alpha = None if given is None else float(given)
        if alpha is not None and not math.isfinite(alpha):
            raise ValueError("no number")
        return alpha, bool(plain.get("use_rslora"))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            "its configuration, which holds alpha, cannot be read",
            where=str(where or lora.path),
            remedy="download or copy it again",
        ) from error


def alpha_of(mapped: MappedFile, change: Change) -> float | None:
    """The number that a file keeps for one module, of whatever type; None where it has none."""
    import torch

    info = change.alpha
    if info is None:
        return None
    if info.type not in _TYPES:
        raise WeightsError(
            f"alpha of '{change.module}' is {info.type}",
            where=str(mapped.header.path),
            remedy="save it as a float or an integer",
        )
    raw = mapped.raw(info).clone()  # the file may not align it
    return float(raw.view(getattr(torch, _TYPES[info.type])).to(torch.float64))


def scale_of(mapped: MappedFile, change: Change, notes: tuple[float | None, bool]) -> float:
    """What ``up @ down`` is multiplied by at strength 1: alpha / rank, 1 where none is known."""
    alpha, root = notes
    found = alpha_of(mapped, change)
    if found is not None:
        return found / change.rank
    if alpha is None:
        return 1.0
    return alpha / (math.sqrt(change.rank) if root else change.rank)
