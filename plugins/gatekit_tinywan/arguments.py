"""Types of command-line arguments, for argparse."""

from __future__ import annotations

import argparse


def positive(text: str, least: int = 1) -> int:
    """A whole number from ``least`` on. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text}: a whole number from {least} on")
    return int(text)
