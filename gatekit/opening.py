"""Opening one variant alone: for research, parity checks and other hosts."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.device import check_device, default_device, kind_of
from gatekit.errors import InputError
from gatekit.filefields import place_files
from gatekit.lookup import MissingFile, finder, missing_error
from gatekit.registry import registry
from gatekit.validate import validated
from gatekit.yamlsource import KeyPath, Source

if TYPE_CHECKING:
    from gatekit.variant import ModelVariant


def open_variant(
    spec: Mapping[str, Any], family: str, device: str | None = None, compute: str | None = None
) -> ModelVariant:
    """One variant alone, loaded: for research, parity checks and other hosts.

    Args:
        spec: As under ``variants`` in a schedule: ``{"use": "gguf", "file": ...}``.
        family: Name of the family.
        device: Where to load it; what ``resolve`` would choose if None.
        compute: What the arithmetic runs in; the family's default if None.

    Raises:
        WeightsError: No such file, or of another model.
        PluginError: An unknown family or variant.
        ScheduleError: A parameter that the variant does not take.
    """
    family_cls = registry().get("family", family, where="family")
    if "use" not in spec:
        raise InputError("a variant needs 'use'", value=dict(spec), remedy="such as 'gguf'")
    cls = registry().variant(family_cls, spec["use"], where="use")
    data = copy.deepcopy({key: value for key, value in spec.items() if key != "use"})
    files = finder(None, None, family_cls.model_dirs())
    missing: list[MissingFile] = []

    def find(name: str, at: KeyPath) -> Path | None:
        path = files.find(name)
        if path is None:
            missing.append(files.missing(name, ".".join(map(str, at))))
        return path

    place_files(data, cls.file_fields, find)
    if missing:
        raise missing_error(missing)
    variant = cls(validated(cls.Params, data, Source("variant"), (), ("use",)))
    variant.facts()
    device = device or default_device()
    check_device(device, "device", "choose another one, such as device='cpu'")
    variant.load(device, compute or family_cls.default_compute.get(kind_of(device), "fp32"))
    return variant
