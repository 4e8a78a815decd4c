"""The JSON Schema of a schedule file, with the parameters of every plugin by its ``use``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gatekit.registry import Registry, registry
from gatekit.schedule import Schedule

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(known: Registry | None = None) -> dict[str, Any]:
    """Schema of a schedule file.

    Args:
        known: Whose plugins; the installed ones if None.
    """
    known = known or registry()
    schema = Schedule.model_json_schema()
    defs: dict[str, Any] = schema["$defs"]
    phase: dict[str, Any] = defs["PhaseEntry"]["properties"]
    phase["sampler"] = _choice(known.samplers.values())
    phase["strategy"] = _choice(known.strategies.values())
    phase["guidance"] = _choice(known.guidance.values())
    phase["history"] = _choice(known.history.values())
    phase["sigmas"] = _choice(known.grids.values())
    phase["until"] = {
        "anyOf": [{"type": "number", "minimum": 0}, {"$ref": "#/$defs/Until"}],
        "description": "Where the phase ends: a sigma after shift, or one of five forms.",
    }
    defs["Until"] |= {"minProperties": 1, "maxProperties": 1}
    size = {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9.]+ *[KMGT]?i?B$"}]}
    defs["Memory"]["properties"]["vram"] = size
    top: dict[str, Any] = schema["properties"]
    top["family"] = _choice(known.families.values())
    steps = {"type": "integer", "minimum": 1, "description": "Steps of the whole run."}
    top["sigmas"] = _choice(known.grids.values(), {"steps": steps})
    top["variants"]["additionalProperties"] = _choice(known.variants.values(), short=False)
    top["extends"] = {"type": "string", "description": "Another schedule; keys here replace its."}
    named = {"type": "object", "additionalProperties": {"type": ["object", "null"]}}
    top["phases"] = {"anyOf": [top["phases"], named]}
    required = schema.pop("required")
    schema["if"] = {"not": {"required": ["extends"]}}
    schema["then"] = {"required": required}
    for unused in ("Use", "GridUse"):
        defs.pop(unused, None)
    return {"$schema": DIALECT, **schema, "title": "gatekit schedule"}


def _choice(
    classes: Iterable[type[Any]], core: dict[str, Any] | None = None, *, short: bool = True
) -> dict[str, Any]:
    """Any of some plugins: its name alone, or ``use`` with its parameters."""
    unique = {(cls.__module__, cls.__qualname__): cls for cls in classes}.values()
    options = [_with_params(cls, core or {}) for cls in sorted(unique, key=lambda c: c.name)]
    names = sorted({cls.name for cls in unique})
    return {"anyOf": [*([{"enum": names}] if short else []), *options]}


def _with_params(cls: type[Any], core: dict[str, Any]) -> dict[str, Any]:
    params = cls.Params.model_json_schema()
    about = (cls.__doc__ or "").strip().split("\n")[0]
    return {
        "type": "object",
        "title": cls.name,
        "description": about,
        "properties": {"use": {"const": cls.name}, **core, **params.get("properties", {})},
        "required": ["use", *params.get("required", [])],
        "additionalProperties": False,
        **({"$defs": params["$defs"]} if "$defs" in params else {}),
    }
