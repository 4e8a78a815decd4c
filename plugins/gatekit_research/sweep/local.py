"""The cells of a sweep one after another in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gatekit_research.sweep.bench import Bench
from gatekit_research.sweep.cells import Cell
from gatekit_research.sweep.store import Line, Store

Done = Callable[[Cell, Line], None]


def run_all(bench: Bench, store: Store, cells: Sequence[Cell], done: Done) -> None:
    """Run what is not done yet, in order; each line is on disk before the next cell begins.

    Args:
        bench: Where they run.
        store: Where lines go.
        cells: In order; a cell that stands there twice runs once.
        done: Told of every cell that ran.
    """
    lines = store.read()
    tried: set[str] = set()
    try:
        for cell in cells:
            line = lines.get(cell.digest)
            what = bench.lacks(cell, line)
            if not what or cell.digest in tried:
                continue
            tried.add(cell.digest)
            new = bench.measure(cell, line) if what == "measure" and line else bench.run(cell)
            store.append(new)
            lines[cell.digest] = new
            done(cell, new)
    finally:
        bench.warm.close()
