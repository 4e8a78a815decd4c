"""Which device a run uses where nobody says so, told without importing torch."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from gatekit.errors import InputError
from gatekit.suggest import did_you_mean

KINDS = ("cpu", "cuda", "mps", "xpu")
DRIVERS = ("/dev/nvidiactl", "/dev/dxg")


def default_device() -> str:
    """``cuda`` where torch can use it, as far as that shows from outside, else ``cpu``."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "cpu"
    driver = os.name == "nt" or any(Path(path).exists() for path in DRIVERS)
    return "cuda" if driver and _torch_has_cuda() else "cpu"


def _torch_has_cuda() -> bool:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    library = Path(spec.origin).parent / "lib"
    return any((library / name).exists() for name in ("libtorch_cuda.so", "torch_cuda.dll"))


def kind_of(device: str) -> str:
    """``cuda`` for ``cuda:1``."""
    return device.partition(":")[0]


def check_name(device: str, where: str | None) -> None:
    """Raise InputError for what is no name of a device; whether it is there, torch knows later."""
    kind, _, number = device.partition(":")
    if kind in KINDS and (number.isdigit() or device == kind):
        return
    close = did_you_mean("cuda" if kind in ("gpu", "nvidia") else kind, KINDS)
    close += "" if close.endswith("?") else ";"
    raise InputError(
        "no such device", where=where, value=device, remedy=f"{close} 'cuda:1' is the second GPU"
    )


def check_device(
    device: str,
    where: str | None = None,
    remedy: str = "choose another one: --set device=cpu",
) -> None:
    """Raise InputError for what is no name of a device, and where torch cannot use ``device``."""
    check_name(device, where)
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:
        raise InputError(
            f"torch cannot use this device: {str(exc).splitlines()[0]}",
            where=where,
            value=device,
            remedy=remedy,
        ) from exc


def compute_capability(device: str) -> tuple[int, int] | None:
    """Compute capability of an NVIDIA GPU such as (9, 0), asked of its driver, without torch.

    None where there is no such GPU or no such driver: a plan may be made on another machine.
    """
    if kind_of(device) != "cuda":
        return None
    return _capability(int(device.partition(":")[2] or 0))


@cache
def _capability(ordinal: int) -> tuple[int, int] | None:
    import ctypes

    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return None
    gpu, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    calls = (
        lambda: driver.cuInit(0),
        lambda: driver.cuDeviceGet(ctypes.byref(gpu), ordinal),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(major), 75, gpu),
        lambda: driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, gpu),
    )
    return (major.value, minor.value) if all(call() == 0 for call in calls) else None
