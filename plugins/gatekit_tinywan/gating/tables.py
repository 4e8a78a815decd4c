"""The tables of the study, as Markdown, from the folder's lines alone."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from gatekit_research import statistics
from gatekit_research.report.results import ArmResults, Results
from gatekit_tinywan.gating.arms import TABLES
from gatekit_tinywan.gating.setup import REFERENCE

RIGHT, MARK, RMSE = "caption.all_right", "caption.mark", "latent_rmse"
# Metric, name of the difference, what it is multiplied with, digits.
MEASURES = (
    (RIGHT, "all right, points", 100.0, ".1f"),
    (MARK, "marks, points", 100.0, ".1f"),
    (RMSE, "latent RMSE to fp16", 1.0, ".4f"),
)
Values = Mapping[tuple[Hashable, Hashable], float]


@dataclass(frozen=True)
class Difference:
    """An arm less its baseline; shares in points (per cent)."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float
    gained: int
    lost: int


def values(arm: ArmResults, metric: str, named: set[int]) -> Values:
    """A metric's values; of marks, those of captions alone that name one."""
    found = arm.values(metric)
    return {(p, s): v for (p, s), v in found.items() if metric != MARK or p in named}


def difference(one: Values, other: Values, scale: float = 1.0) -> Difference | None:
    """Paired over captions and noises; captions are drawn and flipped whole."""
    pair = statistics.paired(one, other)
    if not pair.values:
        return None
    low, high = statistics.bootstrap(pair.values, pair.clusters)
    return Difference(
        mean=scale * pair.mean,
        low=scale * low,
        high=scale * high,
        p=statistics.sign_flip_test(pair.values, pair.clusters),
        detectable=scale * statistics.smallest_effect(pair.values, pair.clusters),
        gained=sum(v > 0 for v in pair.values),
        lost=sum(v < 0 for v in pair.values),
    )


def share_interval(found: Values) -> tuple[float, float]:
    """95 % interval of a share: the bootstrap's; where all values are equal, which leaves that
    nothing to draw, the exact binomial one (Clopper and Pearson) with each caption counted once.
    """
    captions = [key[0] for key in found]
    least = 0.025 ** (1 / len(set(captions)))
    if set(found.values()) == {0.0}:
        return 0.0, 1.0 - least
    if set(found.values()) == {1.0}:
        return least, 1.0
    return statistics.bootstrap(list(found.values()), captions)


def flips(arm: ArmResults, other: ArmResults) -> float:
    """Share of videos whose verdict differs from the other arm's in any part."""

    def verdict(line: Mapping[str, Any]) -> list[float]:
        return [v for k, v in sorted(line["metrics"].items()) if k.startswith("caption.")]

    both = [key for key in arm.lines if key in other.lines]
    if not both:
        return math.nan
    return fmean(verdict(arm.lines[k]) != verdict(other.lines[k]) for k in both)


def marked(captions: Sequence[str]) -> set[int]:
    """Numbers of the captions that give a thing a mark."""
    from gatekit_tinywan.world import parse_caption

    scenes = [parse_caption(text) for text in captions]
    return {i for i, s in enumerate(scenes) if {s.first.mark, s.second.mark} != {"none"}}


def lines(results: Results) -> Iterator[str]:
    """All tables."""
    captions = results.about["prompts"]
    seen = {key[0] for arm in results.arms for key in arm.lines}
    named = marked(captions) & seen
    done = [arm for arm in results.arms if arm.lines]
    seeds = len(results.about["seeds"])
    yield (
        f"{len(seen)} of {len(captions)} captions, noises each: {seeds}; {len(named)} name a mark. "
        "Brackets: 95 % intervals, whole captions drawn."
    )
    if len(seen) < statistics.FEW:
        yield f"With fewer than {statistics.FEW} captions this shows that it runs, nothing else."
    reference = results.arm(REFERENCE)
    for table in TABLES:
        arms = [arm for arm in done if arm.about["case"] == table]
        if arms and reference is not None:
            yield from ("", f"### {table}", "")
            yield from _levels(arms, reference, named)
            yield ""
            yield from _differences(results, arms, named)


def _levels(arms: Sequence[ArmResults], reference: ArmResults, named: set[int]) -> Iterator[str]:
    yield (
        "| arm | videos | bits | evaluations | all right, % | marks right, % "
        "| latent RMSE to fp16, mean / median | verdict other than fp16's, % |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for arm in arms:
        shares = [_share(values(arm, metric, named)) for metric in (RIGHT, MARK)]
        errors = list(arm.values(RMSE).values())
        yield _row(
            arm.name,
            len(arm.lines),
            f"{arm.mean('bits') or math.nan:.2f}",
            f"{arm.mean('nfe') or math.nan:g}",
            *shares,
            f"{fmean(errors):.4f} / {median(errors):.4f}",
            f"{100 * flips(arm, reference):.1f}",
        )


def _share(found: Values) -> str:
    if not found:
        return ""
    low, high = share_interval(found)
    return f"{100 * fmean(found.values()):.1f} {_interval(100 * low, 100 * high, '.1f')}"


def _differences(results: Results, arms: Sequence[ArmResults], named: set[int]) -> Iterator[str]:
    """A line an arm against its baseline; each measure is corrected over the table's arms."""
    pairs = [(arm, base) for arm in arms if (base := results.arm(arm.about["baseline"]))]
    columns: list[list[str]] = []
    for metric, _, scale, form in MEASURES:
        found = [
            difference(values(arm, metric, named), values(base, metric, named), scale)
            if metric != RMSE or REFERENCE not in (arm.name, base.name)
            else None  # an error that is 0 by definition is nothing to compare with
            for arm, base in pairs
        ]
        corrected = statistics.holm([d.p if d else math.nan for d in found])
        said = [_said(d, p, form) for d, p in zip(found, corrected, strict=True)]
        columns += [list(column) for column in zip(*said, strict=True)]
    heads = [f"{name} | p, Holm | detectable | up, down" for _, name, _, _ in MEASURES]
    shown = [heads[i] for i in range(len(MEASURES)) if any(columns[4 * i])]
    kept = [c for i, c in enumerate(columns) if any(columns[4 * (i // 4)])]
    yield f"| arm - baseline | {' | '.join(shown)} |"
    yield "|---|" + "---|" * len(kept)
    for i, (arm, base) in enumerate(pairs):
        yield _row(f"{arm.name} - {base.name}", *(column[i] for column in kept))


def _said(found: Difference | None, p: float, form: str) -> tuple[str, str, str, str]:
    """Mean with its interval, p, what could be detected, and how many pairs went up and down."""
    if found is None:
        return "", "", "", ""
    return (
        f"{found.mean:+{form}} {_interval(found.low, found.high, '+' + form)}",
        "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}",
        "" if math.isnan(found.detectable) else f"{found.detectable:{form}}",
        f"{found.gained}, {found.lost}",
    )


def _interval(low: float, high: float, form: str) -> str:
    return "" if math.isnan(low) or low == high else f"[{low:{form}}, {high:{form}}]"


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
