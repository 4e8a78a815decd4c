"""YAML with places: every value and key of a file knows its file, line and column.

Read by YAML 1.2 (``on`` is a word, ``1e-3`` a number). Size, depth and the number of values
after aliases are limited, so that no file can fill the memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from gatekit.errors import ScheduleError

MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1 << 20, 20_000, 40
OF_WEIGHTS = "of a weight file, 'gatekit inspect {}' says what it is"
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


def read_text(path: Path) -> str:
    """Text of a schedule file.

    Raises:
        ScheduleError: Missing, unreadable, too large, or no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ScheduleError(
            f"cannot read the schedule: {exc.strerror or exc}",
            where=str(path),
            remedy="give the path of a schedule file (.yaml)",
        ) from exc
    if len(data) > MAX_BYTES:
        raise ScheduleError(
            f"larger than {MAX_BYTES >> 20} MiB",
            where=str(path),
            remedy=f"is it a schedule? {OF_WEIGHTS.format(path)}",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ScheduleError(
            "no text file",
            where=str(path),
            remedy=f"a schedule is a YAML file in UTF-8; {OF_WEIGHTS.format(path)}",
        )
    return text


def parse(text: str, file: str) -> Node:
    """Parse YAML text into nodes.

    Args:
        text: One YAML document.
        file: Its name, for messages.

    Raises:
        ScheduleError: No valid YAML, a key twice, or over the limits.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml: Any = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as exc:
        fault = cast(Any, exc)
        mark: Any = fault.problem_mark or fault.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise ScheduleError(
            f"no valid YAML: {fault.problem or fault.context or 'syntax error'}",
            where=str(place),
            remedy="check indentation, quotes and brackets there",
        ) from exc
    except (YAMLError, RecursionError) as exc:
        raise ScheduleError(
            f"no valid YAML: {str(exc).splitlines()[0]}", where=file, remedy="is it a schedule?"
        ) from exc
    if root is None:
        return Node(None, Place(file, 1, 1))
    return _Reader(yaml, file).node(root, 0)


def parse_value(text: str, option: str) -> Node:
    """Parse the value of ``--set KEY=VALUE``; every place in it is the option itself."""
    node = parse(text, option)
    return _replaced(node, Place(option))


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


def _replaced(node: Node, place: Place) -> Node:
    if (keys := items(node)) is not None:
        return Node({k: _replaced(v, place) for k, v in keys.items()}, place)
    if (listed := entries(node)) is not None:
        return Node([_replaced(v, place) for v in listed], place)
    return Node(node.value, place)


@dataclass
class _Reader:
    """Turns composed YAML nodes into ours, counting values."""

    yaml: Any
    file: str
    count: int = 0

    def place(self, node: Any) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def node(self, node: Any, depth: int) -> Node:
        self.count += 1
        place = self.place(node)
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise ScheduleError(
                f"more than {MAX_VALUES} values or {MAX_DEPTH} levels after aliases",
                where=str(place),
                remedy="is it a schedule?",
            )
        kind: str = node.id
        if kind == "mapping":
            return Node(self.mapping(node, depth), place)
        if kind == "sequence":
            return Node([self.node(child, depth + 1) for child in node.value], place)
        return Node(self.scalar(node, place), place)

    def mapping(self, node: Any, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        for key, value in node.value:
            place = self.place(key)
            if key.id != "scalar":
                raise ScheduleError(
                    "a key must be a word", where=str(place), remedy="quote it, or put braces right"
                )
            if key.value in found:
                raise ScheduleError(
                    f"key {key.value!r} is given twice", where=str(place), remedy="keep one of them"
                )
            if key.tag.endswith(":merge"):
                raise ScheduleError(
                    "merge keys are no part of YAML 1.2",
                    where=str(place),
                    remedy="use 'extends' at the top of the file, or write the keys out",
                )
            child = self.node(value, depth + 1)
            child.key = place
            found[key.value] = child
        return found

    def scalar(self, node: Any, place: Place) -> Any:
        tag: str = node.tag.removeprefix("tag:yaml.org,2002:")
        if tag in ("null", "bool", "int", "float"):
            try:
                return self.yaml.constructor.construct_object(node, deep=True)
            except (ValueError, OverflowError) as exc:
                raise ScheduleError(
                    f"no valid {tag}",
                    where=str(place),
                    value=node.value,
                    remedy="quote it if it is text",
                ) from exc
        if tag in ("str", "timestamp"):
            return node.value
        raise ScheduleError(
            f"unknown YAML tag {node.tag!r}", where=str(place), remedy="take it out"
        )
