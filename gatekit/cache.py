"""Where gatekit keeps what it can compute again."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT = "GATEKIT_CACHE"


def cache_folder() -> Path | None:
    """The folder of caches: ``GATEKIT_CACHE``, else the platform's own place; None if ``off``."""
    given = os.environ.get(ENVIRONMENT)
    if given and given.lower() == "off":
        return None
    if given:
        return Path(given).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("gatekit", appauthor=False)
