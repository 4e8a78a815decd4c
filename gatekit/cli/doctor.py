"""``gatekit doctor``: what is here, what is missing, how to get it, and what it is for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gatekit.cli.options import JsonOption, ModelsDirOption

if TYPE_CHECKING:
    from gatekit.check import Examined

COLOURS = {"ok": "green", "note": "cyan", "missing": "yellow", "broken": "red"}


def doctor(models_dir: ModelsDirOption = None, as_json: JsonOption = False) -> int:
    """Look at the installation and the machine; exit code 1 if something needed is missing."""
    from gatekit.doctor.ward import examine
    from gatekit.lookup import check_folders

    check_folders(models_dir or ())
    found = examine(models_dir or ())
    if as_json:
        from gatekit.cli.options import print_json

        print_json({"ok": not any(e.fails for e in found), "checks": [as_data(e) for e in found]})
    else:
        show(found)
    return int(any(e.fails for e in found))


def as_data(entry: Examined) -> dict[str, Any]:
    """A line, as plain data."""
    check, finding = entry.check, entry.finding
    return {
        "name": check.name,
        "state": finding.state,
        "found": finding.found,
        "needed": check.needed,
        "purpose": check.purpose,
        "remedy": finding.remedy,
    }


def show(found: Sequence[Examined]) -> None:
    """One table, then what to do, then the answer in a line."""
    try:
        table(found)
    except ImportError:  # rich is one of the things that may be broken
        for entry in found:
            print(f"{entry.check.name}: {entry.finding.state}: {entry.finding.found}")
    shown = [e for e in found if e.finding.remedy]
    if shown:
        print("\nWhat to do:" if any(e.fails for e in found) else "\nWhat could be done:")
    for entry in sorted(shown, key=lambda e: not e.fails):
        print(f"  {entry.check.name}: {entry.finding.remedy}")
    failing = [e.check.name for e in found if e.fails]
    print(f"\nNot ready: {', '.join(failing)}." if failing else "\nAll that is needed is there.")
    sys.stdout.flush()


def table(found: Sequence[Examined]) -> None:
    """The table, as wide as the terminal; 80 columns where there is none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    made.add_column("what", no_wrap=True)
    made.add_column("state", no_wrap=True)
    made.add_column("found", ratio=3, overflow="fold")
    made.add_column("needed for", ratio=2, overflow="fold")
    for entry in found:
        state = entry.finding.state
        bold = "bold " if entry.fails else ""
        purpose = entry.check.purpose + ("" if entry.check.needed else " (optional)")
        made.add_row(
            Text(entry.check.name),
            Text(state, f"{bold}{COLOURS[state]}"),
            Text(entry.finding.found),
            Text(purpose),
        )
    Console(highlight=False).print(made)
