"""Errors of the power spectrum: detail in space, rhythm in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from gatekit import InputError, Metric, Sample
from gatekit_research.metrics.filters import decibels_apart, luma
from gatekit_research.metrics.likeness import check_alike

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 4  # frames that have a spectrum over time: the window's ends are 0


class SpatialSpectrum(Metric):
    """How far the spatial power spectrum is from the reference's, in dB.

    Radial means of the frames' spectra (luminance, Hann window), averaged over time. It sees
    blur and noise, and not where things are.
    """

    name: ClassVar[str] = "spectrum_spatial"
    higher_is_better = False
    perfect = 0.0
    needs = frozenset({"video", "reference"})
    detects = frozenset({"blur", "noise"})
    unit = "dB"

    def measure(self, sample: Sample) -> float:
        """Root mean square over the bins of radius."""
        check_alike(tuple(sample.video.shape), tuple(sample.reference.video.shape))
        return decibels_apart(radial(sample.video), radial(sample.reference.video))


class TemporalSpectrum(Metric):
    """How far the temporal power spectrum is from the reference's, in dB.

    Every pixel's spectrum over time (luminance, Hann window), averaged over the frame. It sees
    flicker, a wrong order, frames that stand, and motion that is too fast or too slow.
    """

    name: ClassVar[str] = "spectrum_temporal"
    higher_is_better = False
    perfect = 0.0
    needs = frozenset({"video", "reference"})
    detects = frozenset({"noise", "shuffle", "drop", "still"})
    unit = "dB"

    def measure(self, sample: Sample) -> float:
        """Root mean square over the frequencies but 0."""
        check_alike(tuple(sample.video.shape), tuple(sample.reference.video.shape))
        return decibels_apart(temporal(sample.video), temporal(sample.reference.video))


def radial(video: Tensor) -> Tensor:
    """Power by whole radius, ``[bins]``, without the mean."""
    import torch

    frames = luma(video)
    height, width = frames.shape[-2:]
    frames = frames - frames.mean((-2, -1), keepdim=True)
    hann = [torch.hann_window(n, periodic=False).to(frames) for n in (height, width)]
    power = torch.fft.rfft2(frames * hann[0][:, None] * hann[1]).abs().square().mean(0)
    size = min(height, width)
    y, x = torch.fft.fftfreq(height)[:, None] * size, torch.fft.rfftfreq(width)[None] * size
    radius = (x.square() + y.square()).sqrt().round().long().to(power.device)
    bins = size // 2 + 1
    inside = (radius > 0) & (radius < bins)
    sums, counts = (torch.zeros(bins, device=power.device) for _ in range(2))
    sums.index_add_(0, radius[inside], power[inside])
    counts.index_add_(0, radius[inside], torch.ones_like(power[inside]))
    return (sums / counts.clamp(min=1.0))[1:]


def temporal(video: Tensor) -> Tensor:
    """Power by frequency in time, ``[frames // 2]``, without the mean.

    Raises:
        InputError: Fewer than ``FEWEST`` frames: the window leaves one, or none.
    """
    import torch

    if len(video) < FEWEST:
        raise InputError(
            f"a spectrum over time needs {FEWEST} frames",
            value=len(video),
            remedy="make more frames",
        )
    frames = luma(video)
    hann = torch.hann_window(len(frames), periodic=False).to(frames)
    changing = (frames - frames.mean(0, keepdim=True)) * hann[:, None, None]
    return torch.fft.rfft(changing, dim=0).abs().square().mean((1, 2))[1:]
