"""What gatekit and its plugins log, on stderr, while a command runs."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Generator


class Said(logging.Handler):
    """Each record as one line: ``gatekit: text embeddings from the cache: 2 of 2``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it; stderr is looked up now, as progress bars put their own in its place."""
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        # With its end of line in one write: other threads print, too.
        print(f"gatekit: {mark}{record.getMessage()}\n", end="", file=sys.stderr)


@contextlib.contextmanager
def said() -> Generator[None]:
    """Show what is logged under ``gatekit``, from INFO on."""
    logger, handler = logging.getLogger("gatekit"), Said(logging.INFO)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
