"""The charts of a report: sigmas by phase, error against sigma, boundary rho, Pareto."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from gatekit_research.report.compare import pareto, rows
from gatekit_research.report.results import ArmResults, Results
from gatekit_research.report.svg import Axis, Chart
from gatekit_research.sweep.store import Line


@dataclass(frozen=True)
class Figure:
    """A chart and what is said of it.

    Attributes:
        title: Above it.
        svg: The drawing.
        legend: Pairs (number of the colour, name); empty where the page's own legend does.
        note: Below it.
    """

    title: str
    svg: str
    legend: Sequence[tuple[int, str]] = ()
    note: str = ""


def sigmas(
    name: str,
    phases: Sequence[Mapping[str, Any]],
    line: Line,
    stored: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figure:
    """Sigma at each step, coloured by phase; the legend says what model each runs on.

    Args:
        name: Above it.
        phases: Of the plan, as plain data.
        line: Has ``steps``.
        stored: Variant -> how its weights are stored.
    """
    steps = line["steps"]
    at = [(float(i), float(s[1])) for i, s in enumerate(steps)]
    ends = [*at, (float(len(steps)), float(steps[-1][2]))]
    chart = Chart(
        Axis("step", 0.0, float(len(steps))), Axis("sigma", 0.0, 1.04), f"sigmas of {name}", 190
    )
    order = {phase["name"]: i for i, phase in enumerate(phases)}
    for i, step in enumerate(steps):
        chart.line([ends[i], ends[i + 1]], order.get(step[0], 0), name=f"{step[0]} {step[1]:.4f}")
    for (x, y), step in zip(at, steps, strict=True):
        chart.dot(x, y, order.get(step[0], 0), f"{step[0]}: {step[1]:.4f}", 3.0)
    return Figure(name, chart.svg(), [(order[p["name"]], _model(p, stored or {})) for p in phases])


def _model(phase: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]) -> str:
    variant = phase["variant"]
    storage = f" ({stored[variant]['storage']})" if variant in stored else ""
    return f"{phase['name']}: {variant}{storage}, {phase['sampler']['use']}"


def sweep_sigmas(results: Results) -> list[Figure]:
    """One for every arm that has run; arms with the same phases and sigmas share one."""
    found: dict[str, tuple[list[str], ArmResults, Line]] = {}
    for arm in results.arms:
        if arm.lines:
            line = next(iter(arm.lines.values()))
            steps = [s[:3] for s in line["steps"]]
            phases = [_model(p, arm.about["variants"]) for p in arm.about["phases"]]
            found.setdefault(repr((steps, phases)), ([], arm, line))[0].append(arm.name)
    return [
        sigmas("; ".join(names), arm.about["phases"], line, arm.about["variants"])
        for names, arm, line in found.values()
    ]


def curves(results: Results, metric: str) -> Figure | None:
    """A metric along the run: mean over cells at each of the arm's own sigmas."""
    lines: list[tuple[ArmResults, list[tuple[float, float]]]] = []
    for arm in results.arms:
        at: dict[float, list[float]] = {}
        for line in arm.lines.values():
            for sigma, value in line["curves"].get(metric, ()):
                at.setdefault(sigma, []).append(value)
        if at:
            lines.append((arm, sorted((s, fmean(v)) for s, v in at.items())))
    if not lines:
        return None
    values = [v for _, points in lines for _, v in points]
    known = [v for v in values if v > 0]
    log = len(known) == len(values) and max(known) > 30 * min(known)
    y = Axis.over(metric, values, log=log, zero=True)
    chart = Chart(Axis("sigma", 0.0, 1.02), y, f"{metric} against sigma")
    for arm, points in lines:
        chart.line(points, arm.index, name=arm.name)
        for sigma, value in points:
            chart.dot(sigma, value, arm.index, f"{arm.name}: {value:.3g} at {sigma:.3f}", 2.2)
    return Figure(f"{metric} against sigma", chart.svg(), note="Runs go from right to left.")


def boundaries(results: Results) -> Figure | None:
    """Rho of every boundary, a row each: all cells, and their median."""
    found: list[tuple[ArmResults, str, float, list[float]]] = []
    for arm in results.arms:
        at: dict[tuple[str, float], list[float]] = {}
        for line in arm.lines.values():
            for entry in line["rho"]:
                if entry.get("rho"):
                    at.setdefault((entry["phase"], entry["sigma"]), []).append(entry["rho"])
        found += [(arm, phase, sigma, values) for (phase, sigma), values in at.items()]
    if not found:
        return None
    x = Axis.over("rho", [1.0, *(v for *_, values in found for v in values)], log=True)
    y = Axis("", -0.5, len(found) + 0.3)
    chart = Chart(x, y, "rho of the boundaries", 76 + 36 * len(found))
    chart.across(1.0, "rho 1")
    for i, (arm, phase, sigma, values) in enumerate(reversed(found)):
        chart.bar(min(values), i, max(values), i, arm.index)
        for value in values:
            chart.dot(value, i, arm.index, f"{arm.name}: rho {value:.3g}", 2.5)
        chart.dot(median(values), i, arm.index, f"{arm.name}: median {median(values):.3g}", 5.0)
        chart.word(i, f"{arm.name}: into {phase} at {sigma:.3f}")
    note = "How far the new model's first prediction jumps, relative to the step the old one would "
    note += "have taken: below 1 a history is usually worth carrying. Large points are medians."
    return Figure("Boundaries", chart.svg(y_ticks=False), note=note)


AGAINST = {"bits": "mean bits a stored weight", "seconds": "seconds of steps a video"}


def trade(results: Results, metric: str, against: str) -> Figure | None:
    """A metric against what it costs, with intervals of the mean and the front."""
    from gatekit_research.statistics import bootstrap

    higher = results.metric(metric)["higher_is_better"]
    known = [(row, row.arm.mean(against)) for row in rows(results, metric)]
    points = [(row, cost) for row, cost in known if cost is not None]
    if len(points) < 2:
        return None
    ends: list[tuple[float, float]] = []
    for row, _ in points:
        values = row.arm.values(metric)
        ends.append(bootstrap(list(values.values()), [key[0] for key in values], resamples=4000))
    spread = [v for pair in ends for v in pair] + [row.mean for row, _ in points]
    unit = results.metric(metric)["unit"]
    chart = Chart(
        Axis.over(AGAINST[against], [cost for _, cost in points]),
        Axis.over(f"{metric} ({unit})" if unit else metric, spread),
        f"{metric} against {AGAINST[against]}",
    )
    chart.front(pareto([(cost, row.mean) for row, cost in points], higher))
    for (row, cost), (low, high) in zip(points, ends, strict=True):
        if low == low:
            chart.bar(cost, low, cost, high, row.arm.index)
        chart.dot(cost, row.mean, row.arm.index, f"{row.arm.name}: {row.mean:.4g}")
    better = "higher" if higher else "lower"
    note = f"{better.capitalize()} is better. Bars: 95 % intervals of the mean over prompts."
    return Figure(f"{metric} against {against}", chart.svg(), note=note)
