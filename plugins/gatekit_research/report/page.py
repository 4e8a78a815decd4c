"""The page's content, and the template that makes HTML of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gatekit
from gatekit_research.report import plots
from gatekit_research.report.compare import Control, Row, controls, rows
from gatekit_research.report.media import MOST, data_url
from gatekit_research.report.results import ArmResults, Results
from gatekit_research.statistics import FEW


@dataclass(frozen=True)
class Shown:
    """One video beside others: its arm, and the file as a data URL."""

    arm: ArmResults
    url: str | None
    is_video: bool
    why: str


def render(template: str, content: Mapping[str, Any]) -> str:
    """HTML of a template of this package. Raises InputError where jinja2 is missing."""
    try:
        import jinja2
    except ImportError as exc:
        raise gatekit.InputError(
            "reports are made with jinja2, which is not installed",
            remedy=gatekit.install_extra("report"),
        ) from exc
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from gatekit_research.report.svg import number

    environment.filters["number"] = lambda v: "–" if v is None or v != v else number(v)
    environment.filters["signed"] = lambda v: (
        "–" if v != v else f"{'+' if v > 0 else ''}{number(v)}"
    )
    environment.filters["p"] = lambda v: (
        "–" if v != v else "&lt; 0.001" if v < 0.001 else f"{v:.3f}"
    )
    environment.filters["size"] = size
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template(template).render(
        **content, made=now, version=gatekit.__version__
    )


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "–"
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    unit = 0
    while count >= 1024 and unit + 1 < len(units):
        count, unit = count / 1024, unit + 1
    return f"{count:.3g} {units[unit]}"


def sweep_page(results: Results, prompts: int) -> str:
    """The report of a sweep; ``prompts``: of how many videos are shown."""
    about = results.about
    metrics = results.metrics
    tables = [(name, results.metric(name), rows(results, name)) for name in metrics]
    main = [m for m in metrics if "." not in m or m.endswith(".all_right")]
    figures = [plots.trade(results, m, a) for m in main[:4] for a in plots.AGAINST]
    drawn = {m for a in results.arms for line in a.lines.values() for m in line["curves"]}
    curved = [m for m in about["metrics"] if m in drawn]
    along = [
        *(plots.curves(results, m) for m in curved),
        plots.boundaries(results),
    ]
    every = [*results.arms, *([results.reference] if results.reference else [])]
    done = sum(len(arm.lines) for arm in every)
    groups = len(about["prompts"])
    return render(
        "sweep.html",
        {
            "about": about,
            "results": results,
            "done": done,
            "cells": sum(len(arm.about["cells"]) for arm in every),
            "failed": [(a.name, key, text) for a in every for key, text in a.failed.items()],
            "unmeasured": _unmeasured(results),
            "few": groups < FEW,
            "groups": groups,
            "least_p": 2.0 ** (1 - groups),
            "tables": tables,
            "main": main,
            "binary": {m for m in metrics if results.metric(m)["binary"]},
            "primary": main[0] if main else None,
            "controls": _controls(results, main[0]) if main else [],
            "trades": [f for f in figures if f is not None],
            "along": [f for f in along if f is not None],
            "sigmas": plots.sweep_sigmas(results),
            "videos": _videos(results, prompts),
            "shown": min(prompts, groups),
        },
    )


def _unmeasured(results: Results) -> list[tuple[str, int, str]]:
    """Metric, number of cells without a value, and the first reason."""
    reasons: dict[str, list[str]] = {}
    for arm in results.arms:
        for line in arm.lines.values():
            for metric, reason in line["unmeasured"].items():
                if metric.partition(".")[0] not in results.about["metrics"]:
                    continue
                reasons.setdefault(metric, []).append(f"{arm.name}: {reason}")
    return [(metric, len(texts), texts[0]) for metric, texts in reasons.items()]


def _controls(results: Results, metric: str) -> list[tuple[Row, list[Control]]]:
    found = [row for row in rows(results, metric) if row.baseline is not None]
    return [(row, controls(results, metric, row.arm)) for row in found]


def _videos(results: Results, prompts: int) -> list[tuple[str, list[Shown]]]:
    """The first prompts, each with one video an arm; the fixed reference comes first."""
    seed = results.about["seeds"][0]
    arms = [*([results.reference] if results.reference else []), *results.arms]
    found: list[tuple[str, list[Shown]]] = []
    room = MOST
    for number, prompt in enumerate(results.about["prompts"][:prompts]):
        row: list[Shown] = []
        for arm in arms:
            path, url, why = results.video(arm, (number, seed)), None, "no video was kept"
            if path is not None and path.stat().st_size > room:
                why = "left out: the page would be too large"
            elif path is not None:
                room -= path.stat().st_size
                url = data_url(path)
            elif (number, seed) not in arm.lines:
                why = "not run" if (number, seed) not in arm.failed else "failed"
            row.append(Shown(arm, url, True, why))
        found.append((prompt, row))
    if not any(shown.url for _, row in found for shown in row):
        return []
    return found
