"""What a weight file can serve as: how a schedule would name it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gatekit.errors import UserError, WeightsError
from gatekit.registry import registry


def variant_spec(file: str | Path, family: str) -> Mapping[str, Any]:
    """A file as an entry of ``variants``: ``{"use": "gguf", "expert": "high", "file": ...}``.

    Read from its header, and ``expert`` from its name where that says it.

    Args:
        file: A weight file, or a folder that is one model.
        family: Name of the family.

    Raises:
        WeightsError: No such file, or one that no variant of the family can open.
        PluginError: An unknown family.
    """
    path = Path(file).expanduser().absolute()
    if not path.exists():
        raise WeightsError("no such weight file", where=str(file), remedy="check the path")
    reasons: dict[str, None] = {}
    for use, cls in registry().variants_of(registry().get("family", family)).items():
        try:
            cls(cls.Params.model_validate({"file": str(path)})).facts()
            return {"use": use, **cls.suggested(path), "file": str(path)}
        except UserError as exc:
            reasons[str(type(exc)(exc.message, value=exc.value, remedy=exc.remedy))] = None
        except ValueError as exc:  # parameters that a file alone does not give
            reasons[str(exc).splitlines()[0]] = None
    raise WeightsError(
        f"no variant of the family {family!r} can use this file",
        where=str(file),
        remedy="; ".join(reasons) or "'gatekit inspect' tells what it is",
    )
