"""Load k-diffusion's ``sampling`` under a private name, with its noise under our control.

The package's own ``__init__`` is never run: it imports wandb, clip and torchvision, and fails
beside today's versions of them. One helper of its ``utils`` is replaced.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from gatekit import PluginError, install_extra
from gatekit_kdiffusion.source import INSTALL

PRIVATE = "_gatekit_k_diffusion"

_normal: ContextVar[Callable[[Tensor], Any]] = ContextVar("normal")


class Held(Tensor):
    """A state as k-diffusion gets it: vectors of ones made from it stay on the CPU, in float64.

    They only ever carry a sigma to the model, which then reads it exactly and without waiting
    for a device.
    """

    def new_ones(self, size: Any, *_: Any, **__: Any) -> Tensor:
        """Ones for a sigma."""
        return torch.ones(size, dtype=torch.float64)


class Torch:
    """``torch`` as k-diffusion's module sees it: sigmas in float64 on the CPU, noise from us."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def randn_like(x: Tensor, **_: Any) -> Any:
        """Noise of the step in hand, never of a global generator."""
        return _normal.get()(x)

    @staticmethod
    def linspace(start: Any, end: Any, steps: int, **_: Any) -> Tensor:
        """A grid of sigmas."""
        return torch.linspace(float(start), float(end), steps, dtype=torch.float64)

    @staticmethod
    def tensor(value: Any, **_: Any) -> Tensor:
        """A sigma or a tolerance."""
        return torch.tensor(value, dtype=torch.float64)


class NoBar:
    """``tqdm`` as the module sees it. tqdm's own starts a thread, hidden bars included."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, *_: Any) -> None:
        """Nothing."""


def plain_range(steps: int, **_: Any) -> range:
    """``trange`` without a bar."""
    return range(steps)


@contextmanager
def noise(draw: Callable[[Tensor], Any]) -> Generator[None]:
    """Answer the module's ``torch.randn_like`` with ``draw``."""
    token = _normal.set(draw)
    try:
        yield
    finally:
        _normal.reset(token)


def append_dims(x: Tensor, ndim: int) -> Tensor:
    """``x`` with axes of length 1 added; a single number broadcasts as it is."""
    return x[(..., *[None] * (ndim - x.ndim))] if x.ndim else x


@cache
def sampling(file: Path | None) -> ModuleType:
    """The module, loaded once.

    Raises:
        PluginError: The package, or one of the four it needs, is not installed.
    """
    if file is None:
        raise PluginError("the package k-diffusion is not installed", remedy=INSTALL)
    package, utils = ModuleType(PRIVATE), ModuleType(f"{PRIVATE}.utils")
    package.__path__ = []
    utils.append_dims = append_dims  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules[package.__name__], sys.modules[utils.__name__] = package, utils
    spec = importlib.util.spec_from_file_location(f"{PRIVATE}.sampling", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise PluginError(
            f"k-diffusion's samplers need the package {error.name}",
            where=str(file),
            remedy=install_extra("k-diffusion"),
        ) from error
    module.torch = Torch()  # type: ignore[attr-defined]
    module.tqdm, module.trange = NoBar, plain_range  # type: ignore[attr-defined]
    return module
