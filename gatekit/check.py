"""Check: one thing that ``gatekit doctor`` looks at, and what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gatekit.errors import one_line

Health = Literal["ok", "note", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        state: ``ok``; ``note``: works, and worth a line; ``missing``; ``broken``: there, and fails.
        found: What is there, or what is wrong, in a few words.
        remedy: How to get it or to mend it; empty where nothing is to be done.
    """

    state: Health
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """One line of ``gatekit doctor``.

    Attributes:
        name: What is looked at: ``video codecs``.
        purpose: What it is needed for.
        find: Looks, at once and without importing torch. What it raises is shown as ``broken``.
        needed: Whether something that gatekit does by itself fails without it: exit code 1.
    """

    name: str
    purpose: str
    find: Callable[[], Finding]
    needed: bool = False


@dataclass(frozen=True)
class Examined:
    """A check and what it found."""

    check: Check
    finding: Finding

    @property
    def fails(self) -> bool:
        """Whether something needed is missing or broken."""
        return self.check.needed and self.finding.state in ("missing", "broken")


def examined(check: Check) -> Examined:
    """What a check finds; never raises but for Ctrl-C."""
    try:
        return Examined(check, check.find())
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # SystemExit too: a broken package may do anything
        return Examined(check, Finding("broken", one_line(exc), "mend or reinstall it"))
