"""Every error that gatekit raises on purpose says what to do, and ends as its kind should."""

import ast
import errno
from pathlib import Path

import pytest

import gatekit
from gatekit import errors
from gatekit.output import cannot_write

ROOT = Path(gatekit.__file__).parents[1]
FILES = sorted([*(ROOT / "gatekit").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
KINDS = {n for n, c in vars(errors).items() if isinstance(c, type)} - {"Cancelled"}


def made(tree):
    """Calls that make one of gatekit's errors: by name, or as ``gatekit.Name``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("gatekit.") in KINDS:
            yield node


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_remedy_is_given(file):
    for call in made(ast.parse(file.read_text())):
        given = {keyword.arg for keyword in call.keywords}
        assert given & {"remedy", None}, f"{file.name}:{call.lineno}: {ast.unparse(call)}"


def test_the_text_is_place_message_value_remedy():
    error = gatekit.InputError("too large", where="a.yaml:1:2: k", value=9, remedy="use 3")
    assert str(error) == "a.yaml:1:2: k: too large (got 9); use 3"
    assert str(gatekit.InputError("too large")) == "too large"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("ScheduleError", 2),
        ("InputError", 2),
        ("WeightsError", 2),
        ("PluginError", 2),
        ("NumericsError", 1),
        ("OutputError", 1),
        ("Cancelled", 130),
    ],
)
def test_exit_codes(kind, code):
    assert getattr(gatekit, kind)("x").exit_code == code


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((errno.ENOENT, 2), (errno.ENOTDIR, 2), (errno.EISDIR, 2)),
        *((errno.EEXIST, 2), (errno.ENAMETOOLONG, 2)),
        *((errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EACCES, 1), (errno.EIO, 1)),
    ],
)
def test_a_place_that_cannot_be_is_wrong_input_and_a_full_disk_is_not(number, code):
    error = cannot_write(Path("x"), OSError(number, "why"))
    assert isinstance(error, gatekit.OutputError)
    assert isinstance(error, gatekit.InputError) == (code == 2)
    assert error.exit_code == code


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text either")


@pytest.mark.parametrize(
    ("exc", "line"),
    [
        (ValueError("too large\nby far"), "ValueError: too large"),
        (ValueError(" \n "), "ValueError"),
        (KeyError(), "KeyError"),
        (SystemExit(3), "SystemExit: 3"),
        (MuteError(), "MuteError: its text cannot be told"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * errors.LINE),
    ],
)
def test_any_exception_on_one_line(exc, line):
    assert gatekit.one_line(exc) == line
