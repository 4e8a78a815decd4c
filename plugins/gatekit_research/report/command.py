"""``gatekit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import gatekit
from gatekit_research.files import write_text


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN_OR_SWEEP", help="A run folder, or a sweep's folder.")
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT.html", help="The page to write.")
    ] = Path("report.html"),
    prompts: Annotated[
        int, typer.Option("--prompts", min=0, help="Of how many prompts videos are shown.")
    ] = 4,
) -> None:
    """Make one page of a run or a sweep: videos, charts, tests; it needs no other file."""
    from gatekit_research.report.page import sweep_page
    from gatekit_research.report.results import read_results
    from gatekit_research.report.run import run_page
    from gatekit_research.sweep.store import ABOUT

    gatekit.check_out(out)
    if not folder.is_dir():
        raise gatekit.InputError(
            "a file, where a folder was expected" if folder.exists() else "no such folder",
            where=str(folder),
            remedy="name a run folder or a sweep's folder",
        )
    if (folder / ABOUT).is_file():
        results = read_results(folder)
        if not any(arm.lines for arm in results.arms):
            raise gatekit.InputError(
                "no cell of this sweep is done", where=str(folder), remedy="run 'gatekit sweep'"
            )
        page = sweep_page(results, prompts)
    else:
        page = run_page(folder)
    write_text(out, page)
    print(out)
