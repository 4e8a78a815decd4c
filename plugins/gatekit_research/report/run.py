"""The report of one run, from its run folder."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import gatekit
from gatekit_research.report import plots
from gatekit_research.report.media import data_url
from gatekit_research.report.page import render

RECORD = "run.json"


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run folder.

    Raises:
        InputError: No run folder, or a run that has not taken a step.
    """
    try:
        content = json.loads((folder / RECORD).read_text("utf-8"))
        known = {"fingerprint", "schedule", "inputs", "phases"} <= set(content)
    except (OSError, ValueError, TypeError) as exc:
        raise gatekit.InputError(
            "neither a run folder nor the folder of a sweep",
            where=str(folder),
            remedy="name one that holds run.json or sweep.json",
        ) from exc
    if not known or not content.get("steps"):
        raise gatekit.InputError(
            "this run has not taken a step yet", where=str(folder), remedy="report it when it has"
        )
    return content


def run_page(folder: Path) -> str:
    """The report of a run folder."""
    content = read_run(folder)
    steps = content["steps"]
    line = {
        "steps": [[s["phase"], s["sigma"], s["sigma_next"], s["nfe"], s["seconds"]] for s in steps]
    }
    out = Path(content["out"]) if content.get("out") else None
    url = data_url(out) if out is not None else None
    phases: list[dict[str, Any]] = []
    for phase in content["phases"]:
        own = [s for s in steps if s["phase"] == phase["name"]]
        phases.append(
            {
                **phase,
                "steps": len(own),
                "nfe": sum(s["nfe"] for s in own),
                "seconds": sum(s["seconds"] for s in own),
                "each": fmean(s["seconds"] for s in own) if own else None,
                "notes": [s["note"] for s in own if s.get("note")],
            }
        )
    return render(
        "run.html",
        {
            "run": content,
            "name": content["schedule"]["name"],
            "url": url,
            "is_video": out is not None and out.suffix.lower() == ".mp4",
            "out": out.name if out is not None else None,
            "phases": phases,
            "figure": plots.sigmas("Sigmas", content["phases"], line),
            "timings": content.get("timings", {}),
            "steps": steps,
        },
    )
