"""Measures of a finished video that need no downloaded weights."""

from __future__ import annotations

from gatekit import Metric
from gatekit_research.metrics.divergence import X0Divergence
from gatekit_research.metrics.flicker import Flicker
from gatekit_research.metrics.likeness import PSNR, SSIM, LatentRMSE
from gatekit_research.metrics.spectra import SpatialSpectrum, TemporalSpectrum

METRICS: tuple[type[Metric], ...] = (
    LatentRMSE,
    X0Divergence,
    PSNR,
    SSIM,
    SpatialSpectrum,
    TemporalSpectrum,
    Flicker,
)
