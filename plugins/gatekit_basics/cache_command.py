"""``gatekit step-cache``: what a step cache skips, and how far its video is from the uncached."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import gatekit


def step_cache(
    schedule: Annotated[Path, typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml).")],
    prompts: Annotated[
        list[str], typer.Option("-p", "--prompt", help="What to show; several times: all of them.")
    ],
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Seed of the first prompt's noise; each other has one more."),
    ] = 0,
    thresholds: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            min=0.0,
            help="Of every phase that has a cache, or of 'first_block' in all phases where none "
            "has one; several times; default: what the schedule says.",
        ),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option("--steps", min=1, help="Also an uncached run of so many steps, to compare."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print each phase's profile for the cache 'mag'.")
    ] = False,
    overrides: gatekit.SetOption = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
    as_json: gatekit.JsonOption = False,
) -> None:
    """Measure a step cache: passes skipped, time, and the error against the uncached run."""
    from gatekit_basics.cache_error import measure, variations
    from gatekit_basics.cache_mag import POINTS

    read = gatekit.load_schedule(schedule, overrides or [])
    if not (profile or as_json or variations(read, thresholds or [], steps or [])):
        raise gatekit.InputError(
            "nothing to measure, as no phase has a cache",
            where=str(schedule),
            remedy="give --threshold 0.1, --steps or --profile",
        )
    given = [gatekit.Inputs(prompt=p, image=image, seed=seed + i) for i, p in enumerate(prompts)]
    rows, profiles = measure(
        schedule,
        overrides or [],
        given,
        thresholds or [],
        steps or [],
        models_dir=models_dir,
        device=device,
    )
    if as_json:
        print(json.dumps({"rows": [asdict(r) for r in rows], "profiles": profiles}, indent=2))
        return
    table = [["", "passes", "skipped", "error", "seconds", "skipped by phase"]]
    for r in rows:
        by = ", ".join(f"{name} {n:g}" for name, n in r.skipped.items() if n)
        whole = f"{sum(r.skipped.values()):.4g}"
        table.append([r.name, str(r.passes), whole, f"{r.error:.4f}", f"{r.seconds:.2f}", by])
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(widths[i]) for i, cell in enumerate(line[1:-1], start=1)]
        print("  ".join([*cells, line[-1]]).rstrip())
    if profile:
        for name, points in profiles.items():
            if len(points) < POINTS:  # the cache would refuse it
                print(f"{name}: evaluated at one sigma; a profile for 'mag' takes {POINTS}")
                continue
            print(f"{name}: {{use: mag, profile: {json.dumps(points)}}}")
