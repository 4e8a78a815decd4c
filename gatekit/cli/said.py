"""What gatekit and its plugins log, on stderr, while a command runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from gatekit.saying import say


class Said(logging.Handler):
    """Each record as one line: ``gatekit: text embeddings from the cache: 2 of 2``."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print it; stderr is looked up now, as progress bars put their own in its place."""
        mark = "warning: " if record.levelno >= logging.WARNING else ""
        say(f"{mark}{record.getMessage()}")


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
