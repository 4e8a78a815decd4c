"""Tables on a terminal; plain columns where the output is none."""

from __future__ import annotations

from collections.abc import Sequence

WIDE = 200


def print_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], mark: int = -1, left: Sequence[int] = (0,)
) -> None:
    """Print rows under their heads.

    Args:
        heads: One a column.
        rows: Cells.
        mark: Number of the row to stand out.
        left: Columns of text; the others are numbers, and stand to the right.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for i, head in enumerate(heads):
        table.add_column(escape(head), justify="left" if i in left else "right", overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*(escape(cell) for cell in row), style="bold green" if i == mark else "")
    console.print(table)
