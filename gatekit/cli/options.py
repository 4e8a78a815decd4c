"""Arguments and options that several commands share, those of plugins too."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gatekit.jsontext import json_text

Schedule = Annotated[
    Path, typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml), or a result gatekit made.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value: --set phases.high.sampler.eta=0.2"
    ),
]
ModelsDirOption = Annotated[
    list[Path] | None,
    typer.Option("--models-dir", metavar="DIR", help="Folder of weight files; may be repeated."),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="DEVICE", help="cpu, cuda, cuda:1, ...; default: the schedule's."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def print_json(data: Any) -> None:
    """Print plain data for a program."""
    print(json_text(data, indent=2, default=str))
