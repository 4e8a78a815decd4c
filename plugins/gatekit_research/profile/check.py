"""Whether a profile predicts: random schedules run, their change held against their E."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import correlation, fmean, quantiles
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_research.profile.document import Profile
from gatekit_research.profile.recording import undecoded
from gatekit_research.profile.run import name_of
from gatekit_research.profile.work import Work, digest
from gatekit_research.propose.problem import Problem, Proposal, proposal
from gatekit_research.propose.written import schedule_of

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 20_000
LEAST = 3  # schedules, without which there are no ranks
WEIGHTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # of risk, that are tried


def drawn(problem: Problem, count: int, phases: int, seed: int) -> list[Proposal]:
    """Different random schedules of so many phases, other than the reference.

    Boundaries are drawn evenly among the steps, variants evenly among those of the expert; two
    phases in a row that step alike have different ones.

    Raises:
        InputError: There are not so many.
    """
    rng, steps = random.Random(seed), len(problem.options)
    borders = {start for start, _ in problem.stretches}
    free = [i for i in range(steps) if i not in borders]
    found: dict[tuple[Any, ...], Proposal] = {}
    cuts = phases - len(borders)
    for _ in range(TRIES if 0 <= cuts <= len(free) else 0):
        starts = sorted({*borders, *rng.sample(free, cuts)})
        keys = [rng.choice(sorted(problem.options[start])) for start in starts]
        alike = any(
            keys[i] == keys[i - 1] for i, start in enumerate(starts) if start not in borders
        )
        ends = [*starts[1:], steps]
        made = proposal(problem, list(zip(starts, ends, keys, strict=True)))
        if not alike and made.error > 0.0:
            found.setdefault(made.pieces, made)
        if len(found) == count:
            return list(found.values())
    raise gatekit.InputError(
        f"there are not so many schedules of {phases} phases",
        where="--schedules",
        value=count,
        remedy=f"ask for at most {len(found)}"
        if len(found) >= LEAST
        else "profile more variants, or give another number of phases",
    )


@dataclass(frozen=True)
class Checked:
    """Predicted and measured errors of random schedules.

    Attributes:
        proposals: The schedules.
        measured: Mean rms change of the final latent from the reference's, of each.
        runs: Runs of each.
    """

    proposals: Sequence[Proposal]
    measured: Sequence[float]
    runs: int

    def rank(self, quantity: str) -> float:
        """Spearman's correlation of ``error``, ``risk`` or ``bits`` with what was measured."""
        return spearman([getattr(p, quantity) for p in self.proposals], self.measured)

    def weigh(self) -> tuple[float, float] | None:
        """The weight w of risk with which E + w risk orders these schedules best, and how well.

        How well is told of schedules that w was not chosen from: the mean over two halves of
        Spearman's correlation with the w that is best on the other half. None where a half has
        too few schedules for ranks.
        """
        every = range(len(self.proposals))
        halves = every[::2], every[1::2]
        if min(map(len, halves)) < LEAST:
            return None
        held_out = [self._rank(b, self._best(a)) for a, b in (halves, halves[::-1])]
        return self._best(every), fmean(held_out)

    def _best(self, rows: Sequence[int]) -> float:
        return max(WEIGHTS, key=lambda weight: (self._rank(rows, weight), -weight))

    def _rank(self, rows: Sequence[int], weight: float) -> float:
        predicted = [self.proposals[i].error + weight * self.proposals[i].risk for i in rows]
        return spearman(predicted, [self.measured[i] for i in rows])

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Measured over E: 10 %, median, 90 %."""
        values = [m / p.error for p, m in zip(self.proposals, self.measured, strict=True)]
        tenths = quantiles(values, n=10, method="inclusive")
        return tenths[0], tenths[4], tenths[8]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Correlation of ranks, ties at their mean rank; 0 where one side is all the same."""
    x, y = ranks(a), ranks(b)
    return correlation(x, y) if len(set(x)) > 1 < len(set(y)) else 0.0


def ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value, from 1."""
    order = sorted(values)
    return [fmean((order.index(v) + 1, len(order) - order[::-1].index(v))) for v in values]


def check(
    profile: Profile,
    plan: gatekit.Plan,
    proposals: Sequence[Proposal],
    inputs: Sequence[gatekit.Inputs],
    work: Work,
    progress: gatekit.Countdown | None = None,
    models_dir: Sequence[Path] | None = None,
) -> Checked:
    """Run every schedule on each of the inputs, beside the reference; none twice.

    Raises:
        GatekitError: What ``gatekit.run`` raises.
    """
    work.begin()
    plans = [_plan(profile, plan, one, models_dir) for one in proposals]
    names = [
        [digest("check", name_of(plan, run), name_of(p, run)) for p in plans] for run in inputs
    ]
    steps = len(plan.table())
    lacking = [
        [p for p, n in zip(plans, row, strict=True) if work.result(n) is None] for row in names
    ]
    total = sum(steps * (len(row) + 1) for row in lacking if row)
    warm = gatekit.Warm()
    try:
        with progress or gatekit.Countdown(total) as bar:
            for i, (run, row) in enumerate(zip(inputs, names, strict=True)):
                bar.doing(f"run {i + 1} of {len(inputs)}")
                reference: Tensor | None = None
                for one, name in zip(plans, row, strict=True):
                    if work.result(name) is not None:
                        continue
                    if reference is None:
                        reference = _final(plan, run, bar, warm)
                    change = (_final(one, run, bar, warm) - reference).square().mean().sqrt()
                    work.save_result(name, {"rms": float(change)})
    finally:
        warm.close()
    values: list[list[float]] = [[_rms(work, name) for name in row] for row in names]
    return Checked(proposals, [fmean(column) for column in zip(*values, strict=True)], len(inputs))


def _rms(work: Work, name: str) -> float:
    result = work.result(name)
    assert result is not None
    return float(result["rms"])


def _plan(
    profile: Profile, plan: gatekit.Plan, one: Proposal, models_dir: Sequence[Path] | None
) -> gatekit.Plan:
    folder = plan.schedule.folder or Path.cwd()
    data = schedule_of(profile, plan, one, folder / "drawn.yaml", models_dir)
    made = gatekit.Schedule.from_dict(data, folder)
    return gatekit.resolve(made, models_dir=models_dir, device=plan.device, require_files=True)


def _final(
    plan: gatekit.Plan, run: gatekit.Inputs, bar: gatekit.Countdown, warm: gatekit.Warm
) -> Tensor:
    """The final latent, float64, on the CPU."""
    seen: list[Tensor] = []

    def watch(state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        seen[:] = [state.x.detach().double().cpu()]
        bar.advance()

    undecoded(plan, run, [watch], warm)
    return seen[0]
