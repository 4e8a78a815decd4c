"""The named sets of cells: what is asked of the small model, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gatekit_tinywan.study.cell import Cell
from gatekit_tinywan.study.sets import (
    allotment,
    coordinates,
    gate,
    grids,
    history,
    strategies,
    table,
)

SETS: Mapping[str, Callable[[], list[Cell]]] = {
    "table": table.cells,
    "gate": gate.cells,
    "history": history.cells,
    "coordinates": coordinates.cells,
    "grids": grids.cells,
    "strategies": strategies.cells,
    "allotment": allotment.cells,
}

__all__ = ["SETS"]
