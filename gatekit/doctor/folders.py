"""Model folders and caches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gatekit.cache import ENVIRONMENT, cache_folder
from gatekit.check import Check, Finding
from gatekit.doctor.machine import existing
from gatekit.lookup import VARIABLE, listing
from gatekit.sizetext import size

WEIGHTS = (".safetensors", ".gguf", ".pth")
COUNTED = 20_000  # files of a cache that are looked at


def checks(models_dir: Sequence[Path] = ()) -> list[Check]:
    """Of folders."""
    return [
        Check("model folders", "weights beside the small model's", lambda: models(models_dir)),
        Check("caches", "what can be computed again", caches),
    ]


def models(models_dir: Sequence[Path] = ()) -> Finding:
    """Folders that are searched beside the schedule's, and the weight files in each."""
    variable = [Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p]
    folders = [*models_dir, *variable]
    if not folders:
        remedy = f"export {VARIABLE}=/path/to/ComfyUI/models, or --models-dir"
        return Finding("note", "only beside the schedule; none is named", remedy)
    told: list[str] = []
    absent = False
    for given in folders:
        folder = given.expanduser()
        if not folder.is_dir():
            told.append(f"{given}: no such folder")
            absent = True
            continue
        files = [p for p in listing(folder) if p.suffix in WEIGHTS]
        told.append(f"{given}: {len(files)} files, {size(sum(p.stat().st_size for p in files))}")
    if absent:
        return Finding("missing", "; ".join(told), f"mend {VARIABLE} or --models-dir")
    return Finding("ok", "; ".join(told))


def caches() -> Finding:
    """The folder of caches, what it takes, and that it can be written."""
    folder = cache_folder()
    if folder is None:
        return Finding("note", f"switched off ({ENVIRONMENT}=off)", f"unset {ENVIRONMENT}")
    if not os.access(existing(folder), os.W_OK):
        return Finding("broken", f"{folder} is not writable", f"name another: {ENVIRONMENT}=DIR")
    if not folder.exists():
        return Finding("ok", f"{folder}: empty")
    count = total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(Path(root, name)).st_size
            count += 1
        if count >= COUNTED:
            return Finding("ok", f"{folder}: more than {size(total)}")
    return Finding("ok", f"{folder}: {size(total)}")
