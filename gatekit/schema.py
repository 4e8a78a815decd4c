"""The JSON Schema of a schedule file, with the parameters of every plugin by its ``use``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from gatekit.registry import Registry, registry
from gatekit.schedule import Schedule

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(known: Registry | None = None) -> dict[str, Any]:
    """Schema of a schedule file.

    A file that extends another may leave out what the other has: for it nothing is required.

    Args:
        known: Whose plugins; the installed ones if None.
    """
    whole = _whole(known or registry())
    return {
        "$schema": DIALECT,
        "title": "gatekit schedule",
        "type": "object",
        "if": {"required": ["extends"]},
        "then": _optional(whole),
        "else": whole,
    }


def _whole(known: Registry) -> dict[str, Any]:
    raw = Schedule.model_json_schema()
    schema: dict[str, Any] = _inlined(raw, raw.pop("$defs"), ())
    top: dict[str, Any] = schema["properties"]
    phases = top["phases"]
    phase: dict[str, Any] = phases["items"]["properties"]
    phase["sampler"] = _choice(known.samplers.values())
    phase["strategy"] = _choice(known.phases.values())
    phase["guidance"] = _choice(known.guidance.values())
    phase["cache"] = _choice(known.caches.values())
    phase["history"] = _choice(known.history.values())
    phase["sigmas"] = _choice(known.sigmas.values())
    phase["adjust"] = {"anyOf": _adjusts(known)}
    phase["until"] = _boundary(phase["until"], "Where the phase ends")
    top["start"] = _boundary(top["start"], "Where a run from a video starts")
    top["memory"]["properties"]["vram"] = {
        "anyOf": [
            {"type": "integer", "minimum": 1 << 20},
            {"type": "string", "pattern": "^[0-9.]+ *[KMGT]?i?B$"},
        ]
    }
    top["family"] = _choice(known.families.values())
    steps = {"type": "integer", "minimum": 1, "description": "Steps of the whole run."}
    allot = {"enum": ["theta", "lam", "grid"], "description": "What shares them between phases."}
    top["sigmas"] = _choice(known.sigmas.values(), {"steps": steps, "allot": allot})
    top["variants"] = {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": _choice(known.variants.values(), short=False),
    }
    top["extends"] = {"type": "string", "description": "Another schedule; keys here replace its."}
    named = {"type": "object", "additionalProperties": phases["items"]}
    top["phases"] = {"anyOf": [phases, named]}
    return schema


def _boundary(raw: dict[str, Any], what: str) -> dict[str, Any]:
    """A bare number, or exactly one of the five forms."""
    form = next(option for option in raw["anyOf"] if option.get("type") == "object")
    return {
        "anyOf": [
            {"type": "number", "minimum": 0},
            {**form, "minProperties": 1, "maxProperties": 1},
        ],
        "description": f"{what}: a sigma after shift, or one of five forms.",
    }


def _choice(
    classes: Iterable[type[Any]], core: dict[str, Any] | None = None, *, short: bool = True
) -> dict[str, Any]:
    """Any of some plugins: its name alone, or ``use`` with its parameters."""
    unique = {(cls.__module__, cls.__qualname__): cls for cls in classes}.values()
    options = [_with_params(cls, core or {}) for cls in sorted(unique, key=lambda c: c.name)]
    names = sorted({cls.name for cls in unique})
    return {"anyOf": [*([{"enum": names}] if short else []), *options]}


def _with_params(cls: type[Any], core: dict[str, Any]) -> dict[str, Any]:
    raw = cls.Params.model_json_schema()
    params = _inlined(raw, raw.pop("$defs", {}), ())
    return {
        "type": "object",
        "title": cls.name,
        "description": (cls.__doc__ or "").strip().split("\n")[0],
        "properties": {"use": {"const": cls.name}, **core, **params.get("properties", {})},
        "required": ["use", *params.get("required", [])],
        "additionalProperties": False,
    }


def _adjusts(known: Registry) -> list[dict[str, Any]]:
    """What a phase may change in its variant: each distinct ``Adjust``."""
    classes = dict.fromkeys(cls.Adjust for cls in known.variants.values())
    return [_mapping(cls) for cls in sorted(classes, key=lambda c: c.__qualname__)]


def _mapping(cls: type[Any]) -> dict[str, Any]:
    raw = cls.model_json_schema()
    params = _inlined(raw, raw.pop("$defs", {}), ())
    return {
        "type": "object",
        "description": (cls.__doc__ or "").strip().split("\n")[0],
        "properties": params.get("properties", {}),
        "required": params.get("required", []),
        "additionalProperties": False,
    }


def _inlined(node: Any, defs: Mapping[str, Any], inside: tuple[str, ...]) -> Any:
    """A schema with every reference replaced by what it refers to; a recursive one by anything."""
    if isinstance(node, list):
        return [_inlined(entry, defs, inside) for entry in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    keys = cast(dict[str, Any], node)
    if "$ref" in keys:
        name = str(keys["$ref"]).removeprefix("#/$defs/")
        return {} if name in inside else _inlined(defs[name], defs, (*inside, name))
    return {name: _inlined(value, defs, inside) for name, value in keys.items()}


def _optional(node: Any) -> Any:
    """A schema that requires nothing, and allows null, which takes a key out."""
    if isinstance(node, list):
        return [_optional(entry) for entry in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    keys = cast(dict[str, Any], node)
    kept = {k: _optional(v) for k, v in keys.items() if not (k == "required" and _names(v))}
    if isinstance(kept.get("properties"), dict):
        found = cast(dict[str, Any], kept["properties"])
        kept["properties"] = {k: {"anyOf": [v, {"type": "null"}]} for k, v in found.items()}
    return kept


def _names(value: Any) -> bool:
    return isinstance(value, list)
