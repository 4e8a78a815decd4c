"""Measure strategies before they are believed: profiles of precision, plans from them, studies.

Each command is one module, named in ``COMMANDS`` and imported when a command line asks for a
plugin's command. None of these modules imports torch before its command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import hookimpl

if TYPE_CHECKING:
    import typer

    from gatekit import Metric

# name -> "module:function" of a typer command; its attribute ``cls`` may name another class of one
COMMANDS: dict[str, str] = {
    "check-profile": "gatekit_research.profile.check_command:check_profile",
    "commitment": "gatekit_research.commitment.command:commitment",
    "profile": "gatekit_research.profile.command:profile",
    "propose": "gatekit_research.propose.command:propose",
    "report": "gatekit_research.report.command:report",
    "sweep": "gatekit_research.sweep.command:sweep",
}


@hookimpl
def gatekit_register_commands(app: typer.Typer) -> None:
    """Every command of ``COMMANDS``."""
    from importlib import import_module

    for name, place in COMMANDS.items():
        module, function = place.split(":")
        command = getattr(import_module(module), function)
        app.command(name, cls=getattr(command, "cls", None))(command)


@hookimpl
def gatekit_register_metrics() -> list[type[Metric]]:
    """Likeness to a reference, spectra, flicker."""
    from gatekit_research.metrics import METRICS

    return list(METRICS)
