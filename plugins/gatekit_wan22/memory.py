"""How much memory there is, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from pathlib import Path


def free_bytes(device: str) -> int:
    """Memory that can be taken on ``device`` without swapping."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device)[0]
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 4 << 30


def give_back(device: str) -> None:
    """Find what is free and return it to the system: torch's cache, and the C heap on Linux."""
    gc.collect()
    give_back_cached(device)
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no glibc
        ctypes.CDLL(None).malloc_trim(0)


def give_back_cached(device: str) -> None:
    """Return what torch keeps of memory that is free, without a search for more."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
