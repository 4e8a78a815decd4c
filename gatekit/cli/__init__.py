"""The command line: one file a command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Generator, Sequence
from typing import Any

from gatekit import outside, pluginlimit
from gatekit.cli.app import COMMANDS, build
from gatekit.errors import LONGEST, GatekitError, one_line
from gatekit.saying import say

# Of a path that somebody named: even asking whether it is there raises these.
BARRED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``gatekit``; ends the process with the exit code."""
    stdout: Any = sys.stdout
    if hasattr(stdout, "reconfigure"):  # names of files need not be UTF-8 on Linux
        stdout.reconfigure(errors="surrogateescape")
    sys.exit(call(list(sys.argv[1:] if argv is None else argv)))


def call(argv: list[str]) -> int:
    """Run a command line and return its exit code: 0, 1, 2 or 130."""
    debug = "--debug" in argv or bool(os.environ.get("GATEKIT_DEBUG"))
    argv = [word for word in argv if word != "--debug"]
    with everywhere(argv) as words:
        return _call(words, debug)


@contextlib.contextmanager
def everywhere(argv: list[str]) -> Generator[list[str]]:
    """The words of a command line without ``--allow-outside`` and ``--plugins``.

    These hold for all that it does: they go into the environment, so that processes which a
    command starts have them too.
    """
    before = {name: os.environ.get(name) for name in (outside.VARIABLE, pluginlimit.VARIABLE)}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        option, equals, value = word.partition("=")
        if word == outside.OPTION:
            os.environ[outside.VARIABLE] = "1"
        elif option == pluginlimit.OPTION and (given := value if equals else next(rest, "")):
            os.environ[pluginlimit.VARIABLE] = given
        else:
            words.append(word)
    limited = os.environ.get(pluginlimit.VARIABLE) != before[pluginlimit.VARIABLE]
    try:
        _forget_plugins(limited)
        yield words
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _forget_plugins(limited)


def _forget_plugins(changed: bool) -> None:
    """Load plugins anew when next asked for; only a caller in this process has any loaded."""
    if changed and (module := sys.modules.get("gatekit.registry")):
        module.registry.cache_clear()


def _call(argv: list[str], debug: bool) -> int:
    app = build()
    try:
        if wants_plugins(argv):
            add_commands(app)
        result: Any = app(argv, prog_name="gatekit", standalone_mode=False)
        if result == 130:  # what typer makes of Ctrl-C, without a word
            return fail("interrupted", 130)
        return result if isinstance(result, int) else 0
    except GatekitError as exc:
        if debug and exc.exit_code != 130:
            raise
        return fail("; ".join((str(exc), *getattr(exc, "__notes__", ()))), exc.exit_code)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as exc:
        if hasattr(exc, "show") and hasattr(exc, "exit_code"):  # typer's own usage errors
            return usage(exc, argv)
        if type(exc).__name__ == "Abort":
            return fail("interrupted", 130)
        if argv[:1] == ["doctor"] and isinstance(exc, ImportError):
            from gatekit.cli.doctor import doctor  # typer needs packages that may be broken

            return doctor(as_json="--json" in argv)
        if debug:
            raise
        named = getattr(exc, "filename", None)  # a number, of a file that is open
        if isinstance(exc, OSError) and exc.errno in BARRED and isinstance(named, str | bytes):
            place = os.fsdecode(named)[-LONGEST:]
            return fail(f"{place}: {exc.strerror}; name a place that you may use", 2)
        notes = "; ".join(getattr(exc, "__notes__", ()))
        after = notes or "run again with --debug for the traceback"
        return fail(f"unexpected {one_line(exc)}; {after}", 1)


def add_commands(app: Any) -> None:
    """Commands of plugins; one that fails is named, and keeps no other from adding its own."""
    from gatekit.registry import registry
    from gatekit.telling import Told

    hooks = Told(registry().manager.hook)
    for name, failure in hooks.failures("register_commands", {"app": app}):
        say(f"warning: plugin {name} could not add its commands: {one_line(failure)}")


def usage(error: Any, argv: Sequence[str]) -> int:
    """Say what is wrong with a command line as every other error is said; its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # nothing was asked: the help is the answer
        error.show()
        return int(error.exit_code)
    text = " ".join(told(error).split()).rstrip(".")
    if getattr(error, "ctx", None):
        command = error.ctx.command_path
    else:  # an option without its value: typer tells no command
        command = " ".join(["gatekit", *(word for word in argv[:1] if not word.startswith("-"))])
    return fail(f"{text[:1].lower()}{text[1:]}; see '{command} -h'", int(error.exit_code))


def told(error: Any) -> str:
    """What typer says; where pydantic refused a value, in this program's words, with the value."""
    text, cause = str(error.format_message()), error.__cause__
    if not hasattr(cause, "errors"):
        return text
    from gatekit.errors import shown
    from gatekit.validate import said

    first = cause.errors()[0]
    return text.replace(error.message, f"{said(first)} (got {shown(first['input'])})")


def fail(message: str, code: int) -> int:
    """Say what went wrong, on one line of stderr."""
    say(message)
    return code


def wants_plugins(argv: list[str]) -> bool:
    """Whether commands of plugins must be known: for help, where there are third-party ones."""
    command = next((word for word in argv if not word.startswith("-")), None)
    if command is not None:
        return command not in COMMANDS
    if "--version" in argv:
        return False
    from importlib.metadata import entry_points

    return any(not pluginlimit.is_ours(p) for p in entry_points(group="gatekit"))
