"""YAML with places: every value and key of a file knows its file, line and column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where something was written: a file with line and column from 1, or an option."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"


@dataclass
class Node:
    """A value with its place: a dict or list of nodes, or a scalar.

    Attributes:
        value: ``dict[str, Node]``, ``list[Node]`` or a scalar.
        place: Where the value starts.
        key: Where its key was written; the value's place where it has none.
    """

    value: Any
    place: Place
    key: Place | None = None

    def plain(self) -> Any:
        """The value without places."""
        if (keys := items(self)) is not None:
            return {name: child.plain() for name, child in keys.items()}
        if (listed := entries(self)) is not None:
            return [child.plain() for child in listed]
        return self.value


def items(node: Node | None) -> dict[str, Node] | None:
    """The children of a mapping, else None."""
    value: object = node.value if node is not None else None
    return cast(dict[str, Node], value) if isinstance(value, dict) else None


def entries(node: Node | None) -> list[Node] | None:
    """The children of a list, else None."""
    value: object = node.value if node is not None else None
    return cast(list[Node], value) if isinstance(value, list) else None


@dataclass(frozen=True)
class Source:
    """Places of every key path of a schedule, for error messages."""

    file: str
    values: Mapping[KeyPath, Place] = field(default_factory=dict[KeyPath, Place])
    keys: Mapping[KeyPath, Place] = field(default_factory=dict[KeyPath, Place])

    def in_file(self, path: Sequence[str | int]) -> bool:
        """Whether a value was written in a file, and not given by an option or in code."""
        place = self.values.get(tuple(path))
        return place is not None and place.line is not None

    def where(self, path: Sequence[str | int], *, key: bool = False) -> str:
        """``file:line:column: dotted.path``; the nearest parent that was written counts.

        Args:
            path: Key path, such as ``("phases", 1, "until")``.
            key: Point at the key, not at its value.
        """
        path = tuple(path)
        dotted = dotted_path(path)
        if key and path in self.keys:
            return f"{self.keys[path]}: {dotted}"
        for length in range(len(path), -1, -1):
            if path[:length] in self.values:
                return f"{self.values[path[:length]]}: {dotted}" if dotted else str(self.file)
        return f"{self.file}: {dotted}" if dotted else self.file


def dotted_path(path: Sequence[str | int]) -> str:
    """``("phases", 1, "until")`` -> ``phases[1].until``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def source_of(root: Node, file: str) -> Source:
    """The places of a tree, by key path."""
    values: dict[KeyPath, Place] = {}
    keys: dict[KeyPath, Place] = {}

    def visit(node: Node, path: KeyPath) -> None:
        values[path] = node.place
        if node.key is not None:
            keys[path] = node.key
        for name, child in (items(node) or {}).items():
            visit(child, (*path, name))
        for index, child in enumerate(entries(node) or []):
            visit(child, (*path, index))

    visit(root, ())
    return Source(file, values, keys)


def of_value(value: Any, option: str) -> Node:
    """Nodes of a Python value (an override from code); every place is ``option``."""
    place = Place(option)
    if isinstance(value, Mapping):
        keys = cast(Mapping[Any, Any], value)
        return Node({str(k): of_value(v, option) for k, v in keys.items()}, place)
    if isinstance(value, list | tuple):
        listed = cast(Sequence[Any], value)
        return Node([of_value(v, option) for v in listed], place)
    return Node(value, place)


def replaced(node: Node, place: Place) -> Node:
    """The same values, all of one place."""
    if (keys := items(node)) is not None:
        return Node({k: replaced(v, place) for k, v in keys.items()}, place)
    if (listed := entries(node)) is not None:
        return Node([replaced(v, place) for v in listed], place)
    return Node(node.value, place)
