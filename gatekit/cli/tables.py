"""A plan on a terminal, coloured by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit.explain import HEAD, RIGHT, around, cells

if TYPE_CHECKING:
    from gatekit.plan import Plan

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")


def show_plan(plan: Plan) -> None:
    """Print the plan's explanation, its table in the phases' colours."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    colour = {p.name: COLOURS[i % len(COLOURS)] for i, p in enumerate(plan.phases)}
    before, after = around(plan)
    for line in before:
        name = line.partition(":")[0]
        style = f"bold {colour[name]}" if name in colour else ""
        console.print(escape(line), style=style)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for i, head in enumerate(HEAD):
        table.add_column(head, justify="right" if i in RIGHT else "left", no_wrap=True)
    for row in plan.table():
        table.add_row(*cells(row), style=colour[row.phase])
    console.print(table)
    for line in after:
        missing = line.startswith("missing") or line.endswith("(MISSING)")
        style = "red" if missing else "yellow" if line.startswith("warning") else ""
        console.print(escape(line), style=style, soft_wrap=True)
