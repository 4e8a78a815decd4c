"""``gatekit plan``: what a schedule will do, without loading any weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gatekit.cli.options import DeviceOption, JsonOption, ModelsDirOption, Schedule, SetOption


def plan(
    schedule: Schedule,
    overrides: SetOption = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="FILE.png", help="Draw the sigmas, coloured by phase."),
    ] = None,
) -> None:
    """Show what a schedule will do, step by step."""
    import sys

    from gatekit.cli.options import print_json
    from gatekit.load import load_schedule
    from gatekit.resolver import resolve

    if plot is not None:
        from gatekit.plot import check_plot

        check_plot(plot)
    resolved = resolve(load_schedule(schedule, overrides), models_dir=models_dir, device=device)
    if as_json:
        print_json(resolved.to_json())
    elif sys.stdout.isatty():
        from gatekit.cli.tables import show_plan

        show_plan(resolved)
    else:
        print(resolved.explain())
    if plot is not None:
        from gatekit.plot import plot_plan

        plot_plan(resolved, plot)
        print(f"wrote {plot}", file=sys.stderr)
