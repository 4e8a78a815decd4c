"""What is to be chosen: a variant for every step, and what each choice costs there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from gatekit_research.profile.document import RISK_FROM, Profile

KINDS = ("bits", "seconds", "error", "vram", "switches")


@dataclass(frozen=True)
class Option:
    """One variant before one step, as shares of the whole run's sums.

    Attributes:
        error: |ds| rms(v_q - v).
        risk: The same where the step starts at 0.9 or above, else 0.
        bits: Bits a weight times the step's share of all evaluations.
        seconds: Of its evaluations.
    """

    error: float
    risk: float
    bits: float
    seconds: float


@dataclass(frozen=True)
class Problem:
    """Steps, the stretches they fall into, and the options of each.

    Attributes:
        options: By step, by variant.
        stretches: (first step, step after the last): within one, any variant of its expert may
            take over from any other; the phases of two differ in more than their variant.
        peaks: Bytes that each variant needs.
        risk_weight: w in error + w risk.
    """

    options: Sequence[Mapping[str, Option]]
    stretches: Sequence[tuple[int, int]]
    peaks: Mapping[str, int]
    risk_weight: float = 0.0

    def objective(self, option: Option) -> float:
        """Error + w risk."""
        return option.error + self.risk_weight * option.risk

    def within(self, vram: float | None) -> Problem:
        """With the variants alone that need at most ``vram`` bytes."""
        if vram is None:
            return self
        kept = [
            {key: option for key, option in step.items() if self.peaks[key] <= vram}
            for step in self.options
        ]
        return Problem(kept, self.stretches, self.peaks, self.risk_weight)


@dataclass(frozen=True)
class Proposal:
    """A variant for every step, and what that comes to.

    Attributes:
        pieces: (first step, step after the last, variant), in order.
        error: E, the sum of |ds| rms(v_q - v).
        risk: Its part over sigma 0.9.
        objective: error + w risk.
        bits: Mean bits a weight over the evaluations.
        seconds: Of all evaluations.
        vram: Bytes of the largest variant.
        switches: Changes of variant.
    """

    pieces: tuple[tuple[int, int, str], ...]
    error: float
    risk: float
    objective: float
    bits: float
    seconds: float
    vram: int
    switches: int

    def meets(self, limits: Mapping[str, float]) -> bool:
        """Whether every limit is kept."""
        return all(getattr(self, kind) <= most + 1e-9 * abs(most) for kind, most in limits.items())


def problem_of(
    profile: Profile, stretches: Sequence[tuple[int, int]], risk_weight: float
) -> Problem:
    """The problem that a profile poses."""
    total = sum(step.nfe for step in profile.steps)
    options: list[dict[str, Option]] = [{} for _ in profile.steps]
    for key, variant in profile.variants.items():
        for row in variant.rows:
            step = profile.steps[row.step]
            error = (step.sigma - step.sigma_next) * row.rms
            options[row.step][key] = Option(
                error=error,
                risk=error if step.sigma >= RISK_FROM else 0.0,
                bits=variant.bits * step.nfe / total,
                seconds=row.seconds * step.nfe,
            )
    peaks = {key: variant.bytes_needed for key, variant in profile.variants.items()}
    return Problem(options, stretches, peaks, risk_weight)


def proposal(problem: Problem, pieces: Sequence[tuple[int, int, str]]) -> Proposal:
    """What a choice comes to."""
    chosen = [problem.options[i][key] for start, end, key in pieces for i in range(start, end)]
    keys = [key for _, _, key in pieces]
    return Proposal(
        pieces=tuple(pieces),
        error=sum(o.error for o in chosen),
        risk=sum(o.risk for o in chosen),
        objective=sum(problem.objective(o) for o in chosen),
        bits=sum(o.bits for o in chosen),
        seconds=sum(o.seconds for o in chosen),
        vram=max(problem.peaks[key] for key in keys),
        switches=sum(a != b for a, b in pairwise(keys)),
    )
