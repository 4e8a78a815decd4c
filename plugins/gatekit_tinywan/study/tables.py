"""The tables of a study, as Markdown, from stored values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from gatekit_tinywan.study import derived, values
from gatekit_tinywan.study.cell import Cell
from gatekit_tinywan.study.sets import SETS
from gatekit_tinywan.study.store import Row, Store

BASELINES = {"history": ("unipc, carry", "gate, unipc, carry+carry")}
Rows = Mapping[int, Row]


class Report:
    """Prints what a store has.

    Args:
        store: One run.
        own: Flow -> row -> the reference's own error and verdict.
        budgets: Columns.
    """

    def __init__(
        self,
        store: Store,
        own: Mapping[str, Mapping[int, tuple[float, str]]],
        budgets: Sequence[int],
    ) -> None:
        self.store, self.own, self.budgets = store, own, tuple(budgets)

    def lines(self, names: Sequence[str]) -> Iterator[str]:
        """Markdown."""
        about = self.store.about
        yield (
            f"Weights {about['weights']}, prompts of `{about['split']}`, {about['device']}, "
            f"arithmetic {about['compute']}, torch {about['torch']}."
        )
        for flow, rows in self.own.items():
            if rows:
                found = values.errors([error for error, _ in rows.values()])
                yield (
                    f"Reference `{flow}`: halving its steps changes it by {found.mean:.4f} in the "
                    f"mean and {found.median:.4f} in the median, over {found.count} prompts."
                )
        for name in names:
            yield from self._set(name)

    def _set(self, name: str) -> Iterator[str]:
        cells = [c for c in SETS[name]() if c.evaluations in self.budgets]
        there = {(c.row, c.evaluations): rows for c in cells if (rows := self.store.read(c))}
        if not there:
            return
        wanted = [c for c in cells if (c.row, c.evaluations) in there]
        counts = [len(rows) for rows in there.values()]
        few = "" if min(counts) == max(counts) else f" ({min(counts)} in some cells)"
        yield from ("", f"### {name}", "", f"{max(counts)} prompts{few}.")
        for flow in dict.fromkeys(f for c in wanted for f in c.flows):
            yield from self._errors(wanted, there, flow)
        if any(values.right(rows) for rows in there.values()):
            yield from self._quality(name, wanted, there)
        if name == "history":
            yield from self._autos(there)
        if name == "strategies":
            yield from self._settles(there)

    def _columns(self, cells: Sequence[Cell]) -> list[int]:
        return [b for b in self.budgets if any(c.evaluations == b for c in cells)]

    def _grid(
        self, head: str, cells: Sequence[Cell], texts: Mapping[tuple[str, int], str]
    ) -> Iterator[str]:
        """A table: a line a row of the cells, a column a number of evaluations."""
        columns = self._columns(cells)
        yield from ("", f"| {head} | " + " | ".join(map(str, columns)) + " |")
        yield "|---|" + "---|" * len(columns)
        for row in dict.fromkeys(c.row for c in cells):
            yield f"| {row} | " + " | ".join(texts.get((row, b), "") for b in columns) + " |"

    def _errors(
        self, cells: Sequence[Cell], there: Mapping[tuple[str, int], Rows], flow: str
    ) -> Iterator[str]:
        of = [c for c in cells if flow in c.flows]
        texts: dict[tuple[str, int], str] = {}
        for key in ((c.row, c.evaluations) for c in of):
            found = values.errors([row[flow] for row in there[key].values()])
            texts[key] = _errors(found) + _spent(there[key], key[1])
        yield from self._grid(f"error to `{flow}`: mean / median, flips", of, texts)

    def _quality(
        self, name: str, cells: Sequence[Cell], there: Mapping[tuple[str, int], Rows]
    ) -> Iterator[str]:
        texts: dict[tuple[str, int], str] = {}
        for cell in cells:
            key = (cell.row, cell.evaluations)
            mine = values.right(there[key])
            if not mine:
                continue
            share = values.mean_of(list(mine.values()))
            text = f"{share.mean:.3f} ± {share.error:.3f}"
            base = next((r for r in BASELINES.get(name, ("unipc",)) if self._same(r, cell)), "")
            other = values.right(there.get((base, cell.evaluations), {}))
            if (found := values.difference(mine, other)) and base != cell.row:
                text += f" ({found.mean:+.3f} ± {found.error:.3f})"
            verdicts = {i: v for i, (_, v) in self.own.get(cell.flows[0], {}).items()}
            if (moved := values.changed(there[key], verdicts)) is not None:
                text += f", {moved:.2f}"
            texts[key] = text + f"; {fmean(r['seconds'] for r in there[key].values()):.3g} s"
        head = "all right ± standard error (difference to unipc), verdict other than reference's"
        yield from self._grid(f"{head}; seconds a video", cells, texts)

    @staticmethod
    def _same(row: str, cell: Cell) -> bool:
        """Whether a baseline is on the weights of the cell."""
        return row.startswith("gate") == cell.row.startswith("gate")

    def _autos(self, there: Mapping[tuple[str, int], Rows]) -> Iterator[str]:
        """``auto`` by threshold, from runs that carried and runs that reset; nothing without."""
        rows = list(self._auto_rows(there))
        if not rows:
            return
        yield from ("", "`auto`, each sample alone: share carried, error mean / median.", "")
        heads = " | ".join(f"rho <= {t:g}" for t in derived.AUTO)
        yield f"| | evaluations | carry | {heads} | reset | best of both |"
        yield "|---|---|---|" + "---|" * (len(derived.AUTO) + 2)
        yield from rows

    def _auto_rows(self, there: Mapping[tuple[str, int], Rows]) -> Iterator[str]:
        """A line a method and number of evaluations: over one switch, then over two."""
        for method in dict.fromkeys(row.removesuffix(", carry") for row, _ in there):
            for budget in self.budgets:
                runs = [there.get((f"{method}, {p}", budget)) for p in ("carry", "reset")]
                if runs[0] and runs[1]:
                    carried, reset = runs[0], runs[1]
                    found = [derived.auto(t, carried, reset) for t in derived.AUTO]
                    yield self._choices(method, budget, found, carried, reset)
        for method in dict.fromkeys(r.rsplit(", ", 1)[0] for r, _ in there if "+" in r):
            for budget in self.budgets:
                pairs = [(a, b) for a in ("carry", "reset") for b in ("carry", "reset")]
                both = {p: there.get((f"{method}, {p[0]}+{p[1]}", budget), {}) for p in pairs}
                if all(both.values()):
                    found = [derived.auto_twice(t, both) for t in derived.AUTO]
                    ends = both["carry", "carry"], both["reset", "reset"]
                    yield self._choices(method, budget, found, *ends)

    @staticmethod
    def _choices(
        method: str,
        budget: int,
        found: Sequence[derived.Chosen],
        carried: Rows,
        reset: Rows,
    ) -> str:
        """A line: errors at each threshold, between those of always and never carrying."""
        best = derived.best([carried, reset], "fp16")
        cells = [
            _short(carried),
            *(f"{c.mean:.2f}: {_short(c.rows)}" for c in found),
            _short(reset),
            f"{best.mean:.2f}: {_short(best.rows)}",
        ]
        return f"| {method} | {budget} | " + " | ".join(cells) + " |"

    def _settles(self, there: Mapping[tuple[str, int], Rows]) -> Iterator[str]:
        """``settle`` by threshold, and one hand-over for all after as many steps in the mean."""
        for budget in self.budgets:
            prefix = "hand over after "
            runs = {
                int(row.removeprefix(prefix)): rows
                for (row, b), rows in there.items()
                if b == budget and row.startswith(prefix)
            }
            if not runs or not any("settle" in r for r in runs[max(runs)].values()):
                continue
            yield from ("", f"`settle`, each sample alone, {budget} evaluations.", "")
            yield "| threshold | hand-over, mean | mean / median | control | right - control |"
            yield "|---|---|---|---|---|"
            for threshold in derived.SETTLE:
                chosen = derived.settle(threshold, runs)
                control = runs[min(runs, key=lambda k: abs(k - chosen.mean))]
                gain = values.difference(values.right(chosen.rows), values.right(control))
                said = f"{gain.mean:+.3f} ± {gain.error:.3f}" if gain else ""
                yield (
                    f"| {threshold:g} | {chosen.mean:.2f} | {_short(chosen.rows)} | "
                    f"{_short(control)} | {said} |"
                )


def _errors(found: values.Errors) -> str:
    text = f"{found.mean:.4f} / {found.median:.4f}"
    return f"{text}, {found.flips:.2f}" if found.flips else text


def _short(rows: Rows) -> str:
    """Mean and median of the errors to the flow of fp16 weights."""
    found = values.errors([row["fp16"] for row in rows.values()])
    return f"{found.mean:.4f} / {found.median:.4f}"


def _spent(rows: Rows, budget: int) -> str:
    """How many evaluations it took, where that is not the budget."""
    spent = next(iter(rows.values()))["nfe"]
    return "" if spent == budget else f" ({spent})"
