"""From pydantic's complaints to one ScheduleError with file, line, column and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gatekit.errors import ScheduleError
from gatekit.suggest import did_you_mean, one_of
from gatekit.yamlsource import KeyPath, Source

WORDS = {
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be a mapping of keys",
    "model_attributes_type": "must be a mapping of keys",
    "dict_type": "must be a mapping of keys",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "finite_number": "must be a finite number",
}


def validated(
    cls: type[BaseModel], data: Any, source: Source, path: KeyPath, extra: Sequence[str] = ()
) -> Any:
    """A model of the keys under ``path``: the schedule, or a plugin's Params. Raises ScheduleError.

    Args:
        cls: The model.
        data: The keys; for Params without the core's own (``use``).
        source: Places of the schedule.
        path: Where the keys stand.
        extra: The core's own keys there, for "did you mean".
    """
    try:
        return cls.model_validate(data)
    except ValidationError as exc:
        raise schedule_error(exc, cls, source, path, extra) from exc


def schedule_error(
    exc: ValidationError,
    cls: type[BaseModel],
    source: Source,
    path: KeyPath,
    extra: Sequence[str] = (),
) -> ScheduleError:
    """One error for the first thing that is wrong; unknown keys first, as they explain others."""
    found = sorted(exc.errors(), key=lambda e: e["type"] != "extra_forbidden")
    error = found[0]
    kind, value = error["type"], error["input"]
    loc = tuple(part for part in error["loc"] if part != "[key]")
    where: KeyPath = (*path, *loc)
    if kind == "extra_forbidden":
        known = [*fields_at(cls, loc[:-1]), *(extra if len(loc) == 1 else ())]
        return ScheduleError(
            f"unknown key {loc[-1]!r}",
            where=source.where(where, key=True),
            remedy=did_you_mean(loc[-1], known) if known else "this plugin takes no parameters",
        )
    if kind == "missing":
        return ScheduleError(
            "this key is missing", where=source.where(where), remedy=f"add {loc[-1]!r} there"
        )
    context = error.get("ctx", {})
    if kind == "literal_error":
        options = [str(option) for option in literals_at(cls, loc)]
        message, remedy = "is none of the known values", one_of(value, options)
        if value in options:
            remedy = f"write {value} without quotes"
    elif kind == "string_pattern_mismatch":
        message = "a name has letters, digits, '_' and '-', and starts with a letter"
        remedy = None
    elif kind == "value_error":
        message, remedy = str(context.get("error", error["msg"])), None
    else:
        message, remedy = said(error), None
    shown = value if isinstance(value, str | int | float | bool) else None
    if shown is None and kind in WORDS:
        message += f", not {_named(value)}"
    at = source.where(where, key="[key]" in error["loc"])
    return ScheduleError(message, where=at, value=shown, remedy=remedy)


def _named(value: Any) -> str:
    kinds = {"NoneType": "empty", "dict": "a mapping", "list": "a list", "tuple": "a list"}
    name = type(value).__name__
    return kinds.get(name, name)


def said(error: ErrorDetails) -> str:
    """One of pydantic's complaints in the words of this program."""
    if error["type"] == "too_short":
        least = error.get("ctx", {}).get("min_length", 1)
        return "must not be empty" if least == 1 else f"must have at least {least} entries"
    text = error["msg"].removeprefix("Input ").removeprefix("Value ")
    return WORDS.get(error["type"], text[:1].lower() + text[1:])


def fields_at(cls: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Field names of the model that a location leads to."""
    model = model_at(cls, loc)
    return list(model.model_fields) if model is not None else []


def model_at(cls: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that a location leads to, where it can be told."""
    model: type[BaseModel] | None = cls
    for part in loc:
        if model is None or isinstance(part, int) or part not in model.model_fields:
            continue
        model = _model_in(model.model_fields[part].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _model_in(argument)) is not None:
            return found
    return None


def literals_at(cls: type[BaseModel], loc: Sequence[str | int]) -> list[Any]:
    """Values of the ``Literal`` that a location leads to."""
    model = model_at(cls, loc[:-1])
    if model is None or loc[-1] not in model.model_fields:
        return []
    return _literals(model.model_fields[str(loc[-1])].annotation)


def _literals(annotation: Any) -> list[Any]:
    found: list[Any] = []
    for argument in get_args(annotation):
        found += _literals(argument) if get_args(argument) else [argument]
    return [value for value in found if not isinstance(value, type)]
