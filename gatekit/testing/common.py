"""What the checks share: runs, noise of their own, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatekit.functional import FunctionPhase, trace_phases
from gatekit.sampler import Sampler

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.state import Trajectory

GRID = (1.0, 0.96, 0.9, 0.8, 0.65, 0.5, 0.3, 0.15, 0.0)


def trace(
    sampler: Sampler, denoise: Any, x: Tensor, sigmas: Sequence[float] = GRID, **options: Any
) -> Trajectory:
    """One phase, traced."""
    phase = FunctionPhase(denoise, sampler, sigmas, field="one", name="check")
    return trace_phases([phase], x, **options)


def draw(*shape: int, double: bool = True, seed: int = 7) -> Tensor:
    """Noise of the checks' own, from no global generator."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    dtype = torch.float64 if double else torch.float32
    return torch.randn(*shape, generator=generator, dtype=dtype)


def same(a: Tensor, b: Tensor, what: str) -> None:
    """Equal bit for bit."""
    gap = float((a - b).abs().max())
    assert a.equal(b), f"{what}: differs by up to {gap:.3g}, expected the same bits"
