"""Runs watched for their commitment, and the boundaries that follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_research.commitment.bands import NAMES, bands
from gatekit_research.commitment.settle import commitment, settles
from gatekit_research.profile.recording import undecoded

if TYPE_CHECKING:
    from torch import Tensor

WAN = {"t2v": 0.875, "i2v": 0.9}  # sigma at which Wan 2.2's low-noise expert takes over
PHASES = {"commit": "coarse", "structure": "middle"}  # phase -> the band it is to settle


class Watch:
    """An observer that keeps every prediction, on the CPU."""

    def __init__(self, advance: Callable[[], None] = lambda: None) -> None:
        self.sigmas: list[float] = []
        self.predictions: list[Tensor] = []
        self.final: Tensor | None = None
        self.advance = advance

    def __call__(self, state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        """A step ended."""
        self.sigmas.append(record.sigma)
        self.predictions.append(denoised.detach().float().cpu())
        self.final = state.x.detach().float().cpu()
        self.advance()


@dataclass(frozen=True)
class Run:
    """One run's commitment.

    Attributes:
        prompt: Its prompt.
        seed: Its seed.
        curves: Band -> commitment at each sigma.
        settled: Band -> sigma from which it is settled.
    """

    prompt: str
    seed: int
    curves: Mapping[str, Sequence[float]]
    settled: Mapping[str, float]


@dataclass(frozen=True)
class Commitment:
    """What ``gatekit commitment`` found.

    Attributes:
        name: The schedule's.
        path: The noise path.
        sigmas: Where predictions were made.
        edges: Of the bands.
        level: From which commitment on a band counts as settled.
        runs: Every run.
    """

    name: str
    path: gatekit.Path
    sigmas: Sequence[float]
    edges: tuple[float, float]
    level: float
    runs: Sequence[Run]

    @property
    def mean(self) -> dict[str, list[float]]:
        """Band -> mean commitment at each sigma."""
        return {
            name: [
                fmean(values) for values in zip(*(r.curves[name] for r in self.runs), strict=True)
            ]
            for name in NAMES
        }

    @property
    def settled(self) -> dict[str, float]:
        """Band -> sigma from which its mean commitment stays at the level or above."""
        return {n: settles(self.sigmas, c, self.level, self.path) for n, c in self.mean.items()}

    def spread(self, name: str) -> float:
        """Standard deviation over runs of the sigma at which a band settles."""
        return pstdev(run.settled[name] for run in self.runs)

    def log_snr(self, sigma: float) -> float | None:
        """2 lam; None where it is infinite."""
        value = 2.0 * self.path.lam(sigma)
        return value if math.isfinite(value) else None

    @property
    def boundaries(self) -> dict[str, float]:
        """Phase -> where it may end: where its band has settled."""
        return {phase: self.settled[band] for phase, band in PHASES.items()}

    def from_wan(self, sigma: float) -> dict[str, dict[str, float | None]]:
        """How far above Wan's boundary a sigma is, and in log-SNR."""
        own = self.log_snr(sigma)
        return {
            task: {
                "sigma": sigma - boundary,
                "log_snr": None if own is None else own - 2.0 * self.path.lam(boundary),
            }
            for task, boundary in WAN.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "format": "gatekit-commitment-1",
            "name": self.name,
            "edges": list(self.edges),
            "level": self.level,
            "sigmas": list(self.sigmas),
            "log_snr": [self.log_snr(s) for s in self.sigmas],
            "mean": {"commitment": self.mean, "settled": self.settled},
            "boundaries": {
                phase: {
                    "sigma": sigma,
                    "log_snr": self.log_snr(sigma),
                    "from_wan": self.from_wan(sigma),
                }
                for phase, sigma in self.boundaries.items()
            },
            "runs": [
                {"prompt": r.prompt, "seed": r.seed, "commitment": r.curves, "settled": r.settled}
                for r in self.runs
            ],
        }


def path_of(family: gatekit.ModelFamily) -> gatekit.Path:
    """The family's noise path."""
    kinds: dict[str, type[gatekit.Path]] = {
        kind.name: kind for kind in (gatekit.RectifiedFlow, gatekit.VarianceExploding)
    }
    return kinds[family.path]()


def watch(
    plan: gatekit.Plan,
    inputs: Sequence[gatekit.Inputs],
    edges: tuple[float, float],
    level: float,
    advance: Callable[[], None] = lambda: None,
) -> Commitment:
    """Run the plan on each of the inputs. Raises what ``gatekit.run`` raises."""
    path, masks = path_of(plan.family), bands(plan.family.latent_shape(plan.video)[1:], edges)
    runs: list[Run] = []
    sigmas: list[float] = []
    warm = gatekit.Warm()
    try:
        for given in inputs:
            seen = Watch(advance)
            undecoded(plan, given, [seen], warm)
            assert seen.final is not None
            sigmas = seen.sigmas
            curves = commitment(seen.predictions, seen.final, masks)
            settled = {n: settles(sigmas, curve, level, path) for n, curve in curves.items()}
            runs.append(Run(given.prompt, given.seed, curves, settled))
    finally:
        warm.close()
    return Commitment(plan.schedule.name, path, sigmas, edges, level, runs)
