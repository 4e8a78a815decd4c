"""Residency: which variant is loaded, and which must leave to make room."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from gatekit.device import kind_of
from gatekit.errors import GatekitError
from gatekit.explain import size

if TYPE_CHECKING:
    from gatekit.plan import Plan
    from gatekit.variant import ModelVariant

SHARE = 0.75


def free_bytes(device: str) -> int | None:
    """Memory of the device that is free now; None where nobody can tell."""
    if kind_of(device) == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(values["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in values else None


@dataclass
class Residency:
    """Loads variants as phases ask for them.

    Those that leave stay loaded while all that is loaded takes at most three quarters of the
    budget: ``memory.vram``, else what was free at the start. The rest is for activations.

    Attributes:
        plan: Whose variants.
        loaded: Variant -> expected bytes, the one used last at the end; several runs may share it.
        seconds: Key -> seconds spent loading it.
    """

    plan: Plan
    loaded: dict[ModelVariant, int] = field(default_factory=dict["ModelVariant", int])
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        free = free_bytes(self.plan.device)
        if free is not None:  # what earlier runs left loaded can be given back
            free += sum(self.loaded.values())
        asked = self.plan.schedule.memory.vram
        self.budget = asked if free is None else min(asked or free, free)

    def acquire(self, key: str, compute: str) -> ModelVariant:
        """The variant, loaded. Raises GatekitError where the memory does not suffice."""
        variant, device = self.plan.variants[key], self.plan.device
        if variant.loaded != (device, compute):
            self._make_room(key, compute)
            began = time.perf_counter()
            try:
                variant.load(device, compute)
            except (MemoryError, RuntimeError) as exc:
                if not out_of_memory(exc):
                    raise
                variant.unload()
                raise self._too_large(key, compute) from exc
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - began
        self.loaded.pop(variant, None)
        self.loaded[variant] = self._expected(key, compute)
        return variant

    def _expected(self, key: str, compute: str) -> int:
        facts = self.plan.facts.get(key)
        return facts.resident_for(compute) if facts is not None else 0

    def _make_room(self, key: str, compute: str) -> None:
        need, variant = self._expected(key, compute), self.plan.variants[key]
        while self.loaded:
            others = sum(taken for other, taken in self.loaded.items() if other is not variant)
            total = need + others
            known = key in self.plan.facts and self.budget is not None
            if known and total <= SHARE * (self.budget or 0):
                return
            leaving = next(iter(self.loaded))
            del self.loaded[leaving]
            leaving.unload()

    def _too_large(self, key: str, compute: str) -> GatekitError:
        need = size(self._expected(key, compute))
        return GatekitError(
            f"variant {key!r} does not fit into the memory of {self.plan.device}: about {need}",
            remedy="use a smaller quantisation, or another device: --set device=cpu",
        )


def out_of_memory(exc: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError"
