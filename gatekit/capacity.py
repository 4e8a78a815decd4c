"""How much memory a device has free, told without importing torch where it is not there yet."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from gatekit.device import kind_of


def free_bytes(device: str) -> int | None:
    """Memory of the device that is free now; None where nobody can tell."""
    if kind_of(device) == "cuda":
        if "torch" not in sys.modules:
            return _by_driver(int(device.partition(":")[2] or 0))
        import torch

        return int(torch.cuda.mem_get_info(device)[0]) if torch.cuda.is_available() else None
    if kind_of(device) != "cpu":
        return None
    return host_bytes()


def host_bytes() -> int | None:
    """Memory of this machine that can be taken without swapping; None where nobody can tell."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


class _Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong),
                ("used", ctypes.c_ulonglong)]  # fmt: skip


def _by_driver(index: int) -> int | None:
    """Free memory of the GPU that torch would call ``index``, by NVIDIA's management library."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    try:
        if shown is not None:
            index = int(shown.split(",")[index])  # names by UUID are left to torch
        library = ctypes.CDLL("nvml.dll" if os.name == "nt" else "libnvidia-ml.so.1")
        handle, memory = ctypes.c_void_p(), _Memory()
        if library.nvmlInit_v2():
            return None
        try:
            if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
                return None
            if library.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)):
                return None
            return int(memory.free)
        finally:
            library.nvmlShutdown()
    except (OSError, AttributeError, ValueError, IndexError):
        return None
