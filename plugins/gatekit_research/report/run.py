"""The report of one run, from its run folder."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import gatekit
from gatekit_research.report import plots
from gatekit_research.report.media import data_url
from gatekit_research.report.page import render

RECORD = "run.json"


class _Step(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)
    step: int
    phase: str
    sigma: float
    sigma_next: float
    nfe: int
    seconds: float
    note: str | None = None


class _Sampler(BaseModel):
    use: str


class _Phase(BaseModel):
    name: str
    variant: str
    sampler: _Sampler


class _Named(BaseModel):
    name: str


class _Inputs(BaseModel):
    prompt: str


class RunRecord(BaseModel):
    """What a report takes out of ``run.json``."""

    model_config = ConfigDict(allow_inf_nan=False)
    schedule: _Named
    inputs: _Inputs
    phases: list[_Phase] = Field(min_length=1)
    steps: list[_Step]
    seed: int
    device: str
    status: str
    warnings: list[str] = []
    timings: dict[str, float] = {}
    out: str | None = None


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run folder.

    Raises:
        InputError: No run folder, a damaged one, or a run that has not taken a step.
    """
    try:
        content = gatekit.read_json(folder / RECORD, most=None)
    except OSError as exc:
        raise _no_run(folder) from exc
    except ValueError as exc:
        raise _damaged(folder, f"no JSON: {str(exc).splitlines()[0]}") from exc
    if not isinstance(content, dict) or "fingerprint" not in content:
        raise _no_run(folder)
    try:
        found = RunRecord.model_validate(content)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(folder, f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from exc
    if not found.steps:
        raise gatekit.InputError(
            "this run has not taken a step yet", where=str(folder), remedy="report it when it has"
        )
    return cast("dict[str, Any]", content)


def _no_run(folder: Path) -> gatekit.InputError:
    return gatekit.InputError(
        "neither a run folder nor the folder of a sweep",
        where=str(folder),
        remedy="name one that holds run.json or sweep.json",
    )


def _damaged(folder: Path, why: str) -> gatekit.InputError:
    return gatekit.InputError(
        f"the record of this run is damaged: {why}",
        where=str(folder / RECORD),
        remedy="make the video again, or report another run",
    )


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
            "timings": _timings(content.get("timings", {})),
            "steps": steps,
        },
    )


def _timings(seconds: dict[str, float]) -> dict[str, float]:
    """Seconds by part; loading, which happens within the steps, as a part of them."""
    found: dict[str, float] = {}
    inside = {k: s for k, s in seconds.items() if k.startswith("loading ")}
    for what, taken in seconds.items():
        if what == "steps":
            found["steps and loading" if inside else "steps"] = taken
            found.update({f"of these {k}": s for k, s in inside.items()})
        elif what not in inside:
            found[what] = taken
    return found if "steps" in seconds else seconds
