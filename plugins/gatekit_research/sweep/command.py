"""``gatekit sweep``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import gatekit


def sweep(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP.yaml", help="A sweep file.")],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", help="Its folder; default: NAME.sweep."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print cells, evaluations and expected time.")
    ] = False,
    ray: Annotated[bool, typer.Option("--ray", help="Run on local workers of Ray.")] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", min=1, help="Workers of --ray; default: one a GPU, else one for two cores."
        ),
    ] = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --dry-run: print JSON.")] = False,
) -> None:
    """Run many schedules on the same prompts and noise; go on where it was left."""
    from gatekit_research.sweep.setup import Setup
    from gatekit_research.sweep.store import Store

    if workers is not None and not ray:
        raise gatekit.InputError("only Ray has workers", where="--workers", remedy="add --ray")
    if as_json and not dry_run:
        raise gatekit.InputError(
            "JSON is what a dry run prints", where="--json", remedy="add --dry-run, or leave it out"
        )
    setup = Setup.of(sweep, models_dir, device)
    store = Store(out or Path(f"{setup.file.name}.sweep"))
    if store.folder.exists() and not store.folder.is_dir():
        raise gatekit.InputError(
            "this is a file", where="-o", value=str(store.folder), remedy="name a folder"
        )
    if dry_run:
        _show(setup, store, as_json)
        return
    crew = None
    if ray:
        from gatekit_research.sweep.workers import Crew

        crew = Crew(sweep, models_dir, device, workers)
    with store.locked():
        store.begin(setup.about())
        _run(setup, store, crew)
    print(store.folder)


def _run(setup: Any, store: Any, crew: Any) -> None:
    from gatekit_research.sweep.bench import failed_metrics
    from gatekit_research.sweep.local import run_all

    bench = setup.bench(store)
    lines = store.read()
    left = {c.digest: c for c in setup.cells if bench.lacks(c, lines.get(c.digest))}
    failures: list[str] = []
    broken: dict[str, list[str]] = {}
    with gatekit.Countdown(len(left)) as progress:

        def done(cell: Any, line: dict[str, Any]) -> None:
            progress.doing(cell.name)
            progress.advance()
            if line["status"] == "failed":
                failures.append(f"{cell.name}: {line['error']}")
                print(f"gatekit: failed: {failures[-1]}", file=sys.stderr, flush=True)
            for name, reason in failed_metrics(line).items():
                broken.setdefault(name, []).append(f"{cell.name}: {reason}")

        if crew is None:
            run_all(bench, store, setup.cells, done)
        else:
            crew.run_all(bench, store, setup.cells, done)
    ran = len(left) - len(failures)
    there = len({c.digest for c in setup.cells}) - len(left)
    print(f"gatekit: {ran} cells run, {there} were there", file=sys.stderr)
    for name, texts in broken.items():
        said = f"metric {name!r} has no value in {len(texts)} cells, the first: {texts[0]}"
        print(f"gatekit: warning: {said}; the same command tries it again", file=sys.stderr)
    if failures:
        raise gatekit.GatekitError(
            f"{len(failures)} of {len(left)} cells failed, the first: {failures[0]}",
            where=str(store.folder),
            remedy="the others are done; the same command tries the failed ones again",
        )


def _show(setup: Any, store: Any, as_json: bool) -> None:
    import json
    from dataclasses import asdict

    from gatekit_research.sweep.estimate import outlooks
    from gatekit_research.tables import print_table

    lines, bench = store.read(), setup.bench(store)
    left = {c.digest: c for c in setup.cells if bench.lacks(c, lines.get(c.digest)) == "run"}
    found = outlooks(setup.arms, setup.cells, left.values(), lines.values())
    times = [o.seconds for o in found]
    total = None if None in times else sum(t for t in times if t is not None)
    if as_json:
        summary = {"cells": len(setup.cells), "left": len(left), "seconds": total}
        print(json.dumps({"arms": [asdict(o) for o in found], **summary}, indent=1))
        return
    rows = [
        [
            o.arm,
            str(o.cells),
            str(o.left),
            f"{'' if o.exact else 'about '}{o.nfe}",
            str(o.nfe * o.left),
            "" if o.left == 0 else "unknown" if o.seconds is None else gatekit.duration(o.seconds),
        ]
        for o in found
    ]
    print_table(["arm", "cells", "to run", "evaluations each", "evaluations", "time"], rows)
    print(f"{len(setup.cells)} cells, {len(left)} to run, ", end="")
    print(f"{sum(o.nfe * o.left for o in found)} evaluations", end="")
    unknown = "; the time is not known before one cell of every model was run"
    print(unknown if total is None else f", about {gatekit.duration(total)}" if left else "")
