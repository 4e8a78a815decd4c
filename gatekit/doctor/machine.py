"""Memory and disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from gatekit.cache import cache_folder
from gatekit.capacity import host_bytes
from gatekit.check import Check, Finding
from gatekit.sizetext import size

CGROUP = Path("/sys/fs/cgroup/memory.max")
LITTLE_MEMORY = (
    4 << 30
)  # the small model and torch fit; weights of 14 B are then streamed from disk
LITTLE_DISK = 2 << 30  # compiled code, caches and videos need less
NO_DISK = 64 << 20  # a checkpoint and a video do not fit any more


def checks() -> list[Check]:
    """Of the machine."""
    return [
        Check("memory", "weights and activations", memory),
        Check("disk", "results, temporary files", disk, needed=True),
    ]


def memory() -> Finding:
    """What is free of the host's memory, and a container's limit."""
    total, free = total_bytes(), host_bytes()
    if free is None:
        return Finding("note", f"{size(total)} in all" if total else "not told by this system")
    found = f"{size(free)} free" + (f" of {size(total)}" if total else "")
    limit: int | None = None
    with suppress(OSError, ValueError):
        limit = int(CGROUP.read_text("ascii"))
    if limit is not None and (total is None or limit < total):
        found += f"; at most {size(limit)} for this container"
    if min(free, limit or free) < LITTLE_MEMORY:
        return Finding("note", found, "close other programs; memory.ram limits what is read ahead")
    return Finding("ok", found)


def total_bytes() -> int | None:
    """Memory of the machine; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def disk() -> Finding:
    """Free space where files are written, each file system once."""
    places = [("here", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))]
    if (cache := cache_folder()) is not None:
        places.append(("cache", existing(cache)))
    seen: set[int] = set()
    told: list[str] = []
    worst: Finding | None = None
    for name, path in places:
        device = path.stat().st_dev
        if device in seen and os.access(path, os.W_OK):
            continue
        seen.add(device)
        free = shutil.disk_usage(path).free
        told.append(f"{name} {size(free)} free")
        if not os.access(path, os.W_OK):
            told[-1] += ", not writable"
            worst = worst or Finding("note", "", f"{path} is not writable: -o elsewhere")
        elif free < NO_DISK:
            worst = Finding("broken", "", f"make room on the disk of {path}")
        elif free < LITTLE_DISK and worst is None:
            worst = Finding("note", "", f"little room on the disk of {path}")
    text = "; ".join(told)
    return Finding("ok", text) if worst is None else Finding(worst.state, text, worst.remedy)


def existing(path: Path) -> Path:
    """The folder itself, or the nearest above it that is there."""
    return next(p for p in (path, *path.parents) if p.exists())
