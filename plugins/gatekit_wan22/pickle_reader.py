"""A pickle read as data: no name in it is imported, nothing in it is called.

``pickletools`` splits the bytes into operations; the few that ``torch.save`` writes build
plain values here, and every other one is an error. A name stays a ``Name`` and a call a
``Call``, so what a hostile file asks to run is only text.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

MOST_OPERATIONS = 500_000  # a model of 1,095 tensors has 50,000
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "SHORT_BINBYTES", "BINBYTES",
}  # fmt: skip
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True)
class Name:
    """A name that the pickle refers to, such as ``torch FloatStorage``."""

    name: str


@dataclass(frozen=True)
class Call:
    """A call that the pickle asks for."""

    of: Name
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    """What the pickle leaves to its reader: in torch's files, a storage."""

    key: Any


@dataclass
class _Machine:
    allowed: frozenset[str]
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        start = self.marks.pop()
        found = self.stack[start:]
        del self.stack[start:]
        return found

    def last(self, number: int) -> list[Any]:
        if number > len(self.stack):
            raise ValueError("its operations do not fit together")
        found = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return found

    def call(self) -> Any:
        of, arguments = self.last(2)
        if not isinstance(of, Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no name")
        # An OrderedDict is a dict here; torch fills it by items, never by arguments.
        return {} if of.name == "collections OrderedDict" else Call(of, arguments)

    def put(self, pairs: list[Any]) -> None:
        target = self.stack[-1]
        # Keys that are no plain text: hashing nested tuples may take for ever.
        if not isinstance(target, dict) or not all(isinstance(k, str | int) for k in pairs[::2]):
            raise ValueError("it fills what is no dict, or by keys that are no names")
        target.update(zip(pairs[::2], pairs[1::2], strict=True))

    def do(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _LITERALS:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(tuple(self.last(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self.since_mark()))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "GLOBAL":
            if argument not in self.allowed:
                raise ForbiddenNameError(str(argument).replace(" ", "."))
            stack.append(Name(argument))
        elif name == "BINPERSID":
            stack.append(Persistent(*self.last(1)))
        elif name == "REDUCE":
            stack.append(self.call())
        elif name == "SETITEM":
            self.put(self.last(2))
        elif name == "SETITEMS":
            self.put(self.since_mark())
        elif name in ("APPEND", "APPENDS"):
            items = self.last(1) if name == "APPEND" else self.since_mark()
            stack[-1].extend(items)
        elif name == "BUILD":  # attributes, such as a state dict's _metadata: not needed
            self.last(1)
        elif name not in ("PROTO", "STOP"):
            raise ValueError(f"it holds the operation {name}, which a state dict has no use for")


class ForbiddenNameError(ValueError):
    """The pickle refers to a name that no state dict needs: it would run code."""


def read_pickle(content: bytes, allowed: frozenset[str]) -> Any:
    """The value of a pickle.

    Args:
        content: The pickle, as ``torch.save`` writes it (protocol 2).
        allowed: Names that may occur in it, ``module name``; they are not imported.

    Raises:
        ForbiddenNameError: Another name occurs.
        ValueError: It is damaged, or of operations that a state dict does not need.
    """
    machine = _Machine(allowed)
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if number > MOST_OPERATIONS:
                raise ValueError("it has more operations than any model needs")
            machine.do(operation.name, argument)
        (value,) = machine.stack
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError("its operations do not fit together") from error
    return value
