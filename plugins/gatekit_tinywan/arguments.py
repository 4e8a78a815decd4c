"""Types of command-line arguments, for argparse."""

from __future__ import annotations

import argparse
import re


def positive(text: str, least: int = 1) -> int:
    """A whole number from ``least`` on. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from {least} on")
    return int(text)


def pattern(text: str) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error
