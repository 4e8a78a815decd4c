"""Reading YAML into nodes with places, of a file that may come from a stranger.

Read by YAML 1.2 (``on`` is a word, ``1e-3`` a number). Size, depth, the number of values (after
aliases too), tags and numbers are limited, so that no file fills the memory or takes seconds.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gatekit.errors import ScheduleError
from gatekit.yamlsource import Node, Place, replaced

MAX_BYTES, MAX_VALUES, MAX_DEPTH, MAX_BITS = 1 << 20, 20_000, 40, 64
LONGEST_TAG = 200
# Of text: what no schedule needs, and what would steer a terminal that shows it.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_TAG = re.compile(rf"(?:^|[\s\[{{,])!\S{{{LONGEST_TAG}}}", re.MULTILINE)
OF_WEIGHTS = "of a weight file, 'gatekit inspect {}' says what it is"


def read_text(path: Path, kind: str = "schedule") -> str:
    """Text of a schedule file, or of one of another ``kind``.

    Raises:
        ScheduleError: Missing, unreadable, too large, or no UTF-8 text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise ScheduleError(
            f"cannot read the {kind}: {exc.strerror or exc}",
            where=str(path),
            remedy=f"give the path of a {_file(kind)} (.yaml)",
        ) from exc
    if len(data) > MAX_BYTES:
        raise ScheduleError(
            f"larger than {MAX_BYTES >> 20} MiB",
            where=str(path),
            remedy=f"is it a {kind}? {OF_WEIGHTS.format(path)}",
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ScheduleError(
            "no text file",
            where=str(path),
            remedy=f"a {kind} is YAML in UTF-8; {OF_WEIGHTS.format(path)}",
        )
    return text


def _file(kind: str) -> str:
    return kind if kind.endswith("file") else f"{kind} file"


def parse(text: str, file: str, kind: str = "schedule") -> Node:
    """Parse YAML text into nodes.

    Args:
        text: One YAML document.
        file: Its name, for messages.
        kind: What it is to be, for messages.

    Raises:
        ScheduleError: No valid YAML, a key twice, or over the limits.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(text) > MAX_BYTES or _TAG.search(text):  # either would take the parser seconds
        what = "a tag this long" if len(text) <= MAX_BYTES else f"more than {MAX_BYTES >> 20} MiB"
        raise ScheduleError(f"no {kind} has {what}", where=file, remedy=f"is it a {kind}?")
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.composer.compose_node = _counted(yaml.composer.compose_node, file, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an anchor used again is none of the user's concern
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
            f"no valid YAML: {str(exc).splitlines()[0]}", where=file, remedy=f"is it a {kind}?"
        ) from exc
    if root is None:
        return Node(None, Place(file, 1, 1))
    return _Reader(yaml, file, kind).node(root, 0)


def _counted(compose: Callable[..., Any], file: str, kind: str) -> Callable[..., Any]:
    """Ruamel's ``compose_node``, which stops at too many values instead of making them all."""
    count = depth = 0

    def counting(*arguments: Any) -> Any:
        nonlocal count, depth
        count, depth = count + 1, depth + 1
        if count > 2 * MAX_VALUES or depth > MAX_DEPTH + 2:  # keys and values
            raise _too_many(file, kind)
        node = compose(*arguments)
        depth -= 1
        return node

    return counting


def _too_many(where: str, kind: str) -> ScheduleError:
    return ScheduleError(
        f"more than {MAX_VALUES} values or {MAX_DEPTH} levels after aliases",
        where=where,
        remedy=f"is it a {kind}?",
    )


def parse_value(text: str, option: str) -> Node:
    """Parse the value of ``--set KEY=VALUE``; every place in it is the option itself."""
    node = parse(text, option)
    return replaced(node, Place(option))


@dataclass
class _Reader:
    """Turns composed YAML nodes into ours, counting values."""

    yaml: Any
    file: str
    kind: str
    count: int = 0

    def place(self, node: Any) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def node(self, node: Any, depth: int) -> Node:
        self.count += 1
        place = self.place(node)
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise _too_many(str(place), self.kind)
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
            self.text(key, place)
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
                value = self.yaml.constructor.construct_object(node, deep=True)
                if isinstance(value, int) and value.bit_length() > MAX_BITS:
                    raise OverflowError(f"more than {MAX_BITS} bits")
                return value
            except (ValueError, OverflowError) as exc:
                raise ScheduleError(
                    f"no valid {tag}",
                    where=str(place),
                    value=node.value,
                    remedy="quote it if it is text",
                ) from exc
        if tag in ("str", "timestamp"):
            return self.text(node, place)
        raise ScheduleError(
            f"unknown YAML tag {node.tag!r}", where=str(place), remedy="take it out"
        )

    def text(self, node: Any, place: Place) -> str:
        """A text without control characters but tab and line feed."""
        text: str = node.value
        if (found := _CONTROLS.search(text)) is not None:
            raise ScheduleError(
                "a control character in a text",
                where=str(place),
                value=found[0],
                remedy="take it out",
            )
        return text
