"""Where is it lost? ``python -m gatekit_tinywan.diagnose SCHEDULE``.

Starts from the true clips of held-out captions, noised to several levels with the noise of a run,
and samples down from there: what is wrong from a low start is lost below it, by the expert there.
With it, shapes and marks by what they should be, and how many of the wrong shapes the judge could
read as another: a confusion, where the others are drawn too badly for any.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_tinywan.arguments import positive
from gatekit_tinywan.batch import Batch, embed, family_of
from gatekit_tinywan.evaluate import check_judged, joined
from gatekit_tinywan.world import HELD_OUT_SEED, SceneBatch, render, sample_scenes
from gatekit_tinywan.world.attributes import MARKS, SHAPES, SIZES
from gatekit_tinywan.world.judge import Verdict, compare
from gatekit_tinywan.world.judge_measure import measure

if TYPE_CHECKING:
    from torch import Tensor

STARTS = (1.0, 0.96, 0.92, 0.87, 0.7, 0.5, 0.3)
_NEAR = 1e-6


def plan_from(plan: gatekit.Plan, start: float) -> gatekit.Plan:
    """The plan from ``start`` down; a step belongs to the phase of its start, as in a run.

    Raises:
        InputError: ``start`` is not in (0, the plan's first sigma].
    """
    first = plan.phases[0].sigmas[0]
    if not 0 < start <= first:
        raise gatekit.InputError(
            "a start is one of the schedule's noise levels, or between them",
            where="--starts",
            value=f"{start:g}",
            remedy=f"give levels above 0 and up to {first:g}",
        )
    phases = [p for p in plan.phases if start >= p.boundary.until - _NEAR or p is plan.phases[-1]]
    below = [s for s in phases[0].sigmas if s < start - _NEAR]
    phases[0] = replace(phases[0], sigmas=(start, *below))
    return replace(plan, phases=tuple(phases))


def wrong(verdict: Verdict, scenes: SceneBatch, shape: Tensor) -> dict[str, Any]:
    """Wrong shapes and marks, of how many, by what was asked for.

    Args:
        verdict: On the scenes.
        scenes: n scenes.
        shape: Shapes read, ``[n, 2, s]``; -1 is none.
    """
    codes = scenes.codes
    shapes = {
        f"{size} {name}": _share(~verdict.shape, (codes.size == i) & (codes.shape == j))
        for i, size in enumerate(SIZES)
        for j, name in enumerate(SHAPES)
    }
    marks = {name: _share(~verdict.mark, codes.mark == i) for i, name in enumerate(MARKS)}
    other = ((shape >= 0) & (shape != codes.shape[..., None])).any(-1)
    confused = _share(other & ~verdict.shape, ~verdict.shape)
    return {"wrong_shapes": shapes, "wrong_marks": marks, "of_wrong_shapes_another": confused}


def _share(count: Tensor, among: Tensor) -> str:
    return f"{int((count & among).sum())}/{int(among.sum())}"


def diagnose(
    plan: gatekit.Plan, starts: Sequence[float], clips: int, *, device: str, batch: int
) -> list[dict[str, Any]]:
    """Figures of each start on the first ``clips`` held-out captions, with the same noise."""
    import torch

    plans = [plan_from(plan, start) for start in starts]
    scenes = sample_scenes(HELD_OUT_SEED, range(clips), split="held_out")
    captions = scenes.captions()
    vae = family_of(plan).open_vae(device)
    found: list[list[tuple[Verdict, Tensor]]] = [[] for _ in starts]
    with torch.no_grad():
        for at in range(0, clips, batch):
            rows = range(at, min(at + batch, clips))
            part = scenes[rows.start : rows.stop].to(device)
            true = vae.encode(render(part) * 2 - 1)
            prompts = embed(plan, [captions[i] for i in rows], list(rows), device)
            for start, lower, results in zip(starts, plans, found, strict=True):
                run = Batch(lower, prompts, device)
                latents = run.sample((1 - start) * true + start * run.start())
                video = torch.cat([vae.decode(z) for z in latents.split(16)]) / 2 + 0.5
                reading = measure(video, part.codes.colour)
                results.append((compare(reading, part.codes), reading.shape))
    lines: list[dict[str, Any]] = []
    for start, lower, results in zip(starts, plans, found, strict=True):
        verdict = joined([v for v, _ in results])
        steps = sum(len(p.sigmas) - 1 for p in lower.phases)
        rates = {k: round(v, 3) for k, v in verdict.rates().items()}
        shape = torch.cat([s.cpu() for _, s in results])
        lines.append({"start": start, "steps": steps, **rates, **wrong(verdict, scenes, shape)})
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, print a line of JSON a start. Returns the exit code."""
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m gatekit_tinywan.diagnose",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("schedule", type=Path, metavar="SCHEDULE")
    parser.add_argument(
        "--starts",
        type=float,
        nargs="+",
        default=STARTS,
        metavar="SIGMA",
        help="noise levels to start from (" + " ".join(f"{s:g}" for s in STARTS) + ")",
    )
    parser.add_argument("--clips", type=positive, default=64, help="held-out captions (64)")
    parser.add_argument("--batch", type=positive, default=16, help="videos at a time (16)")
    parser.add_argument("--device", default=None, help="cpu or cuda; default: what is there")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the schedule"
    )
    args = parser.parse_args(arguments)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        schedule = gatekit.load_schedule(args.schedule, overrides=args.set)
        plan = gatekit.resolve(schedule, device=device)
        check_judged(plan, args.schedule)
        gatekit.check_device(device, "--device", "choose another one: --device cpu")
        lines = diagnose(plan, args.starts, args.clips, device=device, batch=args.batch)
    except gatekit.UserError as error:
        print(error, file=sys.stderr)
        return 2
    for line in lines:
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
