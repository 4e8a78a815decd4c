"""File names inside a variant's parameters: dotted fields, through lists (``loras.file``)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from gatekit.yamlsource import KeyPath


def place_files(
    data: dict[str, Any], fields: Sequence[str], find: Callable[[str, KeyPath], Path | None]
) -> None:
    """Replace file names by absolute paths, in place; a name that is not found stays.

    Args:
        data: A variant's parameters, not yet validated.
        fields: Its ``file_fields``.
        find: From a name and where it stands below ``data`` to its path, or None.
    """
    for field in fields:
        for keys, name, at in _owners(data, field.split("."), ()):
            if isinstance(keys[name], str | Path):
                keys[name] = str(find(str(keys[name]), at) or keys[name])


def without_files(data: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Validated parameters without places of files; ``data`` itself is changed."""
    for field in fields:
        for keys, name, _ in list(_owners(data, field.split("."), ())):
            del keys[name]
    return data


def _owners(
    data: Any, parts: list[str], at: KeyPath
) -> Iterator[tuple[dict[str, Any], str, KeyPath]]:
    """Every mapping that has the last of ``parts``, with that key and its place."""
    if isinstance(data, list):
        for i, entry in enumerate(cast(list[Any], data)):
            yield from _owners(entry, parts, (*at, i))
    elif isinstance(data, dict) and parts[0] in data:
        keys = cast(dict[str, Any], data)
        here = (*at, parts[0])
        if len(parts) > 1:
            yield from _owners(keys[parts[0]], parts[1:], here)
        else:
            yield keys, parts[0], here
