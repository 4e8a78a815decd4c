"""``python -m gatekit_tinywan.study SET...``: the study of samplers on the small model."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import gatekit
from gatekit_tinywan.arguments import pattern, positive
from gatekit_tinywan.study import __doc__ as about
from gatekit_tinywan.study import peer
from gatekit_tinywan.study.bench import Bench
from gatekit_tinywan.study.cell import BUDGETS, Cell, digest
from gatekit_tinywan.study.flow import FINE, LEAST_STEPS
from gatekit_tinywan.study.sets import SETS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; run, count or print. Returns the exit code."""
    args = _parser().parse_args(arguments)
    everything = args.all or "all" in args.sets
    names = args.sets if args.sets and not everything else list(SETS)
    try:
        for name in names:
            if name not in SETS:
                raise gatekit.InputError(
                    "no such set", value=name, remedy=f"one of: {', '.join(SETS)}; or --all"
                )
        if args.markdown:
            return _print(args, names)
        if not (args.sets or everything or args.dry_run):
            return _which(args)
        cells = _cells(args, names)
        return _count(args, cells) if args.dry_run else _run(args, cells)
    except gatekit.UserError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gatekit_tinywan.study",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    add("--all", action="store_true", help="all sets; --dry-run and --markdown need no name for it")
    add("--prompts", type=positive, default=64, metavar="N", help="prompts (64)")
    add("--split", choices=("tune", "report"), default="report", help="which prompts (report)")
    add("--evaluations", type=_numbers, default=BUDGETS, metavar="N,N", help="budgets: 8,12,20,40")
    add("--only", type=pattern, metavar="REGEX", help="rows whose names match")
    add("--out", type=Path, default=Path("study"), metavar="DIR", help="values (study)")
    add("--batch", type=positive, help="videos at a time (128 on a GPU, else 4)")
    add("--device", help="cpu or cuda; default: what is there")
    add("--compute", default="fp32", help="arithmetic of the experts (fp32)")
    add("--tf32", action="store_true", help="TF32 products on a GPU: faster, rounded to 10 bits")
    add("--no-judge", action="store_true", help="decode no videos")
    add("--seconds", type=float, help="begin no batch after so long; run again to go on")
    add("--reference-steps", type=_fine, default=FINE, metavar="N", help=f"of the flow ({FINE})")
    add("--models-dir", type=Path, help="folder of weights")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of all schedules")
    add("--dry-run", action="store_true", help="print cells and evaluations, run nothing")
    add("--markdown", action="store_true", help="print the tables of what is stored")
    add("--run", metavar="NAME", help="folder in --out to print; default: the newest")
    return parser


def _fine(text: str) -> int:
    return positive(text, LEAST_STEPS)


def _numbers(text: str) -> tuple[int, ...]:
    known = {str(number): number for number in BUDGETS}
    parts = [part.strip() for part in text.split(",")]
    if not set(parts) <= set(known):
        raise argparse.ArgumentTypeError(f"{text}: of {', '.join(known)}")
    return tuple(known[part] for part in parts)


def _which(args: argparse.Namespace) -> int:
    """The sets and what they cost: all of them are the work of hours, so one has to say so."""
    from gatekit_tinywan.study.dry import listing

    sets = {name: _named(args, [name]) for name in SETS}
    said = [
        "no set is named; name some of these, or say --all:",
        *listing(sets, args.prompts, args.reference_steps),
        f"with --prompts {args.prompts} and all that a set is compared with. What is stored is not "
        "run again; --dry-run counts exactly.",
    ]
    print("\n".join(said), file=sys.stderr)
    return 2


def _named(args: argparse.Namespace, names: Sequence[str]) -> list[Cell]:
    found = [c for name in names for c in SETS[name]() if c.evaluations in args.evaluations]
    return [c for c in found if args.only is None or args.only.search(c.row)]


def _cells(args: argparse.Namespace, names: Sequence[str]) -> list[Cell]:
    found = _named(args, names)
    if any(c.peer for c in found) and (said := peer.missing()):
        print(said, file=sys.stderr)
        found = [c for c in found if c.peer is None]
    return found


def _bench(args: argparse.Namespace) -> Bench:
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    bench = Bench(device, args.compute, args.models_dir, args.set)
    bench.plan("fp16", {}, files=False)  # what is wrong for all cells is said once, before any
    return bench


def _run(args: argparse.Namespace, cells: Sequence[Cell]) -> int:
    from gatekit_tinywan.study.references import References
    from gatekit_tinywan.study.run import OutOfTime, Study
    from gatekit_tinywan.study.store import Store

    began = time.monotonic()
    bench = _bench(args)
    gatekit.check_device(bench.device, "--device", "choose another one: --device cpu")
    what = {**bench.about(args.split), "reference steps": args.reference_steps}
    store = Store(args.out / f"{what['weights']}-{args.split}-{digest(what)[:6]}", what)
    study = Study(
        bench,
        store,
        References(bench, store, args.split, args.reference_steps),
        args.split,
        args.prompts,
        args.batch or (128 if bench.device.startswith("cuda") else 4),
        judge=not args.no_judge,
        until=float("inf") if args.seconds is None else began + args.seconds,
        say=lambda text: print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True),
    )
    try:
        study.run(cells)
    except OutOfTime:
        left = len({c.identity for c in cells if study.lacking(c)})
        print(f"cells left: {left}; run this again to go on", file=sys.stderr)
        return 1
    if study.failed:
        print(f"{len(study.failed)} of {len(cells)} cells failed:", file=sys.stderr)
        for name, said in study.failed.items():
            print(f"  {name}: {said}", file=sys.stderr)
    print(store.folder)
    return 1 if study.failed else 0


def _count(args: argparse.Namespace, cells: Sequence[Cell]) -> int:
    """A line a cell, and the sum."""
    from gatekit_tinywan.study.dry import count

    judge = not args.no_judge
    for line in count(_bench(args), cells, args.prompts, args.reference_steps, judge):
        print(line)
    return 0


def _print(args: argparse.Namespace, names: Sequence[str]) -> int:
    from gatekit_tinywan.study.references import References
    from gatekit_tinywan.study.store import find
    from gatekit_tinywan.study.tables import Report

    store = find(args.out, args.split, args.run)
    references = References(Bench("cpu"), store, args.split, store.about["reference steps"])
    own = {flow: references.errors(flow) for flow in ("fp16", "gate")}
    for line in Report(store, own, args.evaluations).lines(names):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
