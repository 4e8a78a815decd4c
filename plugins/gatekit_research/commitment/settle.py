"""Commitment of a band along a run, and the sigma from which it is settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gatekit_research.commitment.bands import dct3

if TYPE_CHECKING:
    from torch import Tensor

    import gatekit


def commitment(
    predictions: Sequence[Tensor], final: Tensor, masks: Mapping[str, Tensor]
) -> dict[str, list[float]]:
    """Of each band B and each prediction D: c = 1 - ||B (D - x0)||/||B x0||.

    1: the band is as it will be. 0: nothing of it is there yet. Below 0: what is there is wrong.

    Args:
        predictions: Denoised predictions ``[1, C, T, H, W]``, in order.
        final: The latent x0 that the run ended at.
        masks: From ``bands``.
    """
    end = dct3(final)
    sizes = {name: end[..., mask].norm() for name, mask in masks.items()}
    curves: dict[str, list[float]] = {name: [] for name in masks}
    for prediction in predictions:
        difference = dct3(prediction) - end
        for name, mask in masks.items():
            curves[name].append(1.0 - float(difference[..., mask].norm() / sizes[name]))
    return curves


def settles(
    sigmas: Sequence[float], curve: Sequence[float], level: float, path: gatekit.Path
) -> float:
    """The sigma below which a band stays committed to ``level`` or more.

    Interpolated linearly in s/(alpha + s), which is s on a flow, between two predictions; at
    sigma 0 everything is committed.

    Args:
        sigmas: Falling; where the predictions were made.
        curve: Commitment there.
        level: From which on a band counts as settled.
        path: The family's noise path.
    """

    def place(sigma: float) -> float:
        return sigma / (path.alpha(sigma) + sigma)

    sigmas, curve = [*sigmas, 0.0], [*curve, 1.0]
    below = [i for i, value in enumerate(curve) if value < level]
    if not below:
        return sigmas[0]
    i = below[-1]
    part = (level - curve[i]) / (curve[i + 1] - curve[i])
    at = place(sigmas[i]) + part * (place(sigmas[i + 1]) - place(sigmas[i]))
    return _sigma_at(at, sigmas[i + 1], sigmas[i], path)


def _sigma_at(at: float, low: float, high: float, path: gatekit.Path) -> float:
    """Where s/(alpha + s) is ``at``, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2.0
        if middle / (path.alpha(middle) + middle) < at:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0
