"""Documents: YAML files of a plugin's own kind, read as schedules are, with places for errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from gatekit.errors import ScheduleError
from gatekit.load import Override
from gatekit.outside import is_inside, outside_allowed, outside_error, plain
from gatekit.validate import validated
from gatekit.yamlparse import parse, read_text
from gatekit.yamlsource import Node, Source, entries, items, source_of

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Document(Generic[M]):
    """A file as a model, and where each of its values was written.

    Attributes:
        value: The model.
        folder: Where the file is; paths in it are beside it.
    """

    value: M
    folder: Path
    _root: Node
    _source: Source

    def where(self, path: Sequence[str | int], *, key: bool = False) -> str:
        """``file:line:column: dotted.path`` of a value, or of its key."""
        return self._source.where(path, key=key)

    def beside(self, name: str, path: Sequence[str | int]) -> Path:
        """The file of a name that is written at ``path``; it must be below this file's folder.

        Raises:
            ScheduleError: It is elsewhere, and ``--allow-outside`` was not given.
        """
        file = plain(self.folder / name)
        if not outside_allowed() and not is_inside(file, [self.folder]):
            raise outside_error(name, self.where(path), f"the folder of {self._source.file}")
        return file

    def override(self, key: str, path: Sequence[str | int]) -> Override:
        """The value written at ``path`` as an override of a schedule's ``key``.

        Errors that come of it are told at this file's lines. The nearest key above is the key's
        place: that of ``sigmas.steps: [8, 20]`` for both values.
        """
        node, at = self._root, self._root.key
        for part in path:
            keys, listed = items(node), entries(node)
            if keys is not None:
                node = keys[str(part)]
            else:
                assert listed is not None
                node = listed[int(part)]
            at = node.key or at
        return Override(key, Node(node.value, node.place, at), str(at or node.place))


def load_document(path: str | Path, model: type[M], kind: str = "YAML file") -> Document[M]:
    """Read a YAML file.

    Args:
        path: The file.
        model: What it must be; a model that forbids unknown keys, such as ``gatekit.Params``.
        kind: What messages call it: ``sweep file``.

    Raises:
        ScheduleError: With file, line, column, key, value and remedy.
    """
    path = Path(path)
    root = parse(read_text(path, kind), str(path), kind)
    source = source_of(root, str(path))
    data = root.plain()
    if not isinstance(data, dict):
        raise ScheduleError(
            f"a {kind} is a mapping of keys",
            where=str(path),
            value=data,
            remedy="start with 'version: 1'",
        )
    return Document(validated(model, data, source, ()), path.resolve().parent, root, source)
