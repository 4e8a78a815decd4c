"""How far a result is from its reference: latents and frames."""

from __future__ import annotations

from typing import ClassVar

from gatekit import InputError, Metric, Sample
from gatekit_research.metrics.filters import luma, separable, window

MOST = 100.0  # dB; of equal frames, as infinity is no number in a file
SIGMA, RADIUS = 1.5, 5  # of the window of SSIM
C1, C2 = 0.01**2, 0.03**2


def check_alike(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    """Raise InputError where two results are not of one size."""
    if one != other:
        raise InputError(
            f"the reference is of another size: {list(other)}",
            value=list(one),
            remedy="give the reference the same width, height and frames",
        )


class LatentRMSE(Metric):
    """Root mean square difference of the final latents."""

    name: ClassVar[str] = "latent_rmse"
    higher_is_better = False
    perfect = 0.0
    needs = frozenset({"latent", "reference"})

    def measure(self, sample: Sample) -> float:
        """sqrt(mean((x - r)^2))."""
        x, r = sample.latent, sample.reference.latent
        check_alike(tuple(x.shape), tuple(r.shape))
        return float((x.float() - r.float()).square().mean().sqrt())


class PSNR(Metric):
    """Peak signal to noise ratio of the frames, at most 100 dB."""

    name: ClassVar[str] = "psnr"
    higher_is_better = True
    perfect = MOST
    needs = frozenset({"video", "reference"})
    detects = frozenset({"blur", "noise", "shuffle", "drop", "colour_shift"})
    unit = "dB"

    def measure(self, sample: Sample) -> float:
        """-10 log10(mean((v - r)^2)) over all frames."""
        v, r = sample.video, sample.reference.video
        check_alike(tuple(v.shape), tuple(r.shape))
        return float(-10.0 * (v - r).square().mean().clamp(min=1e-10).log10())


class SSIM(Metric):
    """Structural similarity of luminance (Wang et al. 2004): Gaussian window of 11, sigma 1.5."""

    name: ClassVar[str] = "ssim"
    higher_is_better = True
    perfect = 1.0
    needs = frozenset({"video", "reference"})
    detects = frozenset({"blur", "noise", "shuffle", "drop"})

    def measure(self, sample: Sample) -> float:
        """Mean of (2 m_v m_r + C1)(2 s_vr + C2) / ((m_v^2 + m_r^2 + C1)(s_v^2 + s_r^2 + C2))."""
        check_alike(tuple(sample.video.shape), tuple(sample.reference.video.shape))
        v, r = luma(sample.video), luma(sample.reference.video)
        radius = min(RADIUS, (min(v.shape[-2:]) - 1) // 2)
        weights = window(SIGMA, radius)
        mean_v, mean_r = (separable(p, weights) for p in (v, r))
        square_v, square_r, product = (separable(p, weights) for p in (v * v, r * r, v * r))
        varied = square_v - mean_v**2 + square_r - mean_r**2
        shared = product - mean_v * mean_r
        ratio = (2 * mean_v * mean_r + C1) * (2 * shared + C2)
        return float((ratio / ((mean_v**2 + mean_r**2 + C1) * (varied + C2))).mean())
