"""One line on stderr, whatever has become of it."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO, cast


def say(text: str) -> None:
    """``gatekit: text``; nothing where stderr is closed, full, or read by nobody any more.

    A run of hours does not end because its log does. In a handler of a signal the same stream may
    be in use below, which Python refuses.
    """
    stream = cast("TextIO | None", sys.stderr)
    if stream is None:  # closed before the start; print would take stdout instead
        return
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        # With its end of line in one write: other threads print, too.
        print(f"gatekit: {text}\n", end="", file=stream, flush=True)
