"""``python -m gatekit_tinywan.gating``: the study of precision gating on the small model."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import gatekit
from gatekit_tinywan.arguments import pattern, positive
from gatekit_tinywan.gating import __doc__ as about
from gatekit_tinywan.gating.arms import (
    FP16,
    GATE_KINDS,
    Arm,
    Part,
    arms_of,
    bits_of,
    parts_of,
    proposed_parts,
)
from gatekit_tinywan.gating.setup import VIDEO, Options, Setup, plan_of
from gatekit_tinywan.gating.weights import Files


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; make, run, count or print. Returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        return _print(args) if args.markdown else _study(args)
    except gatekit.UserError as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m gatekit_tinywan.gating",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--prompts", type=positive, default=256, metavar="N", help="held-out captions (256)")
    add("--seeds", type=positive, default=2, metavar="N", help="noises a caption (2)")
    add("--only", type=pattern, metavar="REGEX", help="arms whose names match; fp16 always")
    add("--profile", type=Path, metavar="FILE", help="also run what 'gatekit propose' finds in it")
    add("--out", type=Path, default=Path("gating"), metavar="DIR", help="folder (gating)")
    add("--batch", type=positive, help="videos at a time (128 on a GPU, else 8)")
    add("--steps", type=positive, default=20, metavar="N", help="steps, of all arms (20)")
    add("--device", help="cpu or cuda; default: what is there")
    add("--compute", default="fp32", help="arithmetic of the experts (fp32)")
    add("--tf32", action="store_true", help="TF32 products on a GPU: faster, rounded to 10 bits")
    add("--seconds", type=float, help="begin no batch after so long; run again to go on")
    add("--models-dir", type=Path, action="append", default=[], help="folder of weights")
    add("--video", type=_video, default=VIDEO, metavar="WxHxF", help="size (96x96x25)")
    add("--make", action="store_true", help="make the weight files that are lacking, and end")
    add("--no-importance", action="store_true", help="weigh no errors when files are made")
    add("--dry-run", action="store_true", help="print arms, cells, evaluations and bits")
    add("--markdown", action="store_true", help="print the tables of what is stored")
    return parser


def _video(text: str) -> dict[str, int]:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text}: as 96x96x25")
    width, height, frames = map(int, found.groups())
    return {"width": width, "height": height, "frames": frames, "fps": VIDEO["fps"]}


def _study(args: argparse.Namespace) -> int:
    import torch

    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    gatekit.check_device(device, "--device", "choose another one: --device cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    files = Files(args.out, args.models_dir)
    options = Options(
        args.prompts, args.seeds, args.steps, args.video, args.compute, device, files.folders
    )
    arms, starts = _arms(args, files, options)
    chosen = _chosen(args, arms)
    lacking = files.lacking(_kinds(arms), sorted({arm.text for arm in arms}))
    if args.dry_run:
        return _count(chosen, files, options, starts, lacking)
    if lacking:
        from gatekit_tinywan.gating.calibrate import importance_of

        weights = None if args.no_importance else lambda: importance_of(options)
        files.make(lacking, weights, say)
    if args.make:
        print(files.made)
        return 0
    ready = replace(options, folders=files.folders)
    return _run(args, Setup(arms, ready), {arm.name for arm in chosen}, say, began)


def _kinds(arms: Sequence[Arm]) -> list[str]:
    return sorted({part.kind for arm in arms for part in arm.parts})


def _chosen(args: argparse.Namespace, arms: Sequence[Arm]) -> list[Arm]:
    """Those that ``--only`` names, their baselines, and fp16, which errors are taken to."""
    if args.only is None:
        return list(arms)
    wanted = [arm for arm in arms if args.only.search(arm.name)]
    names = {a.name for a in wanted} | {a.baseline for a in wanted} | {FP16}
    return [arm for arm in arms if arm.name in names]


def _arms(
    args: argparse.Namespace, files: Files, options: Options
) -> tuple[list[Arm], list[float]]:
    """Every arm, and the sigmas that steps start from."""
    fine = Arm(FP16, "precision", parts_of([FP16] * 3), ("unipc",) * 3)
    plan = plan_of(fine, options)
    first, second, third = (len(phase.sigmas) - 1 for phase in plan.phases)
    starts = [step.sigma for step in plan.table()]
    parts: list[Part] = []
    if args.profile is not None:
        most = bits_of(replace(fine, parts=parts_of(GATE_KINDS)), starts, files.bits)
        parts = proposed_parts(args.profile, starts, most, files.folders)
    return arms_of((first, second, third), files.bits, parts), starts


def _count(
    arms: Sequence[Arm],
    files: Files,
    options: Options,
    starts: Sequence[float],
    lacking: Sequence[str],
) -> int:
    """A line an arm, and the sum; nothing is made or run."""
    cells, total = options.prompts * options.seeds, 0
    for arm in arms:
        nfe = cells * plan_of(arm, options, files=False).nfe
        total += nfe
        bits = bits_of(arm, starts, files.bits)
        print(f"{arm.table:12}  {arm.name}: {bits:.2f} bits, {cells} videos, {nfe} evaluations")
    print(f"{len(arms)} arms, {len(arms) * cells} videos, {total} evaluations of two passes")
    if lacking:
        print(f"files to be made: {', '.join(lacking)}")
    return 0


def _run(
    args: argparse.Namespace,
    setup: Setup,
    names: set[str],
    say: Callable[[str], None],
    began: float,
) -> int:
    from gatekit_research.sweep.store import Store
    from gatekit_tinywan.gating.run import Runner

    store = Store(args.out)
    store.begin(setup.about)
    device = setup.options.device
    runner = Runner(
        setup,
        store,
        device,
        args.batch or (128 if device.startswith("cuda") else 8),
        until=float("inf") if args.seconds is None else began + args.seconds,
        say=say,
    )
    with store.locked():
        left = runner.run(names)
    _print(args)
    if left:
        print(f"videos left: {left}; run this again to go on", file=sys.stderr)
    for said in runner.failures:
        print(f"failed: {said}", file=sys.stderr)
    return 1 if left or runner.failures else 0


def _print(args: argparse.Namespace) -> int:
    from gatekit_research.report.results import read_results
    from gatekit_tinywan.gating.tables import lines

    for line in lines(read_results(args.out)):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
