"""How often is everything right? ``python -m gatekit_tinywan.evaluate SCHEDULE...``.

Runs each schedule on the same held-out captions with the same noise, judges every attribute,
and compares each schedule with the first: accuracy with standard errors, the paired
difference with its standard error, and PSNR of the videos to the first's.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_tinywan.arguments import positive
from gatekit_tinywan.batch import Batch, embed, family_of
from gatekit_tinywan.world import HELD_OUT_SEED, Verdict, judge, sample_scenes

if TYPE_CHECKING:
    from torch import Tensor


def generate(
    plan: gatekit.Plan, captions: Sequence[str], seeds: Sequence[int], device: str
) -> Tensor:
    """Latents ``[n, C, T, H, W]`` of one video a caption, as ``gatekit.run`` makes them.

    Args:
        plan: A resolved schedule of the family ``tinywan``.
        captions: Prompts.
        seeds: One seed a caption: video i is the same in a batch as alone.
        device: Where to compute.
    """
    return Batch(plan, embed(plan, captions, seeds, device), device).sample()


def evaluate(
    plan: gatekit.Plan, clips: int, *, device: str, batch: int, say: Callable[[str], None] = print
) -> tuple[Verdict, Tensor]:
    """Verdict on the first ``clips`` held-out captions, and the videos as bytes."""
    import torch

    scenes = sample_scenes(HELD_OUT_SEED, range(clips), split="held_out")
    captions = scenes.captions()
    vae = family_of(plan).open_vae(device)
    verdicts: list[Verdict] = []
    videos: list[Tensor] = []
    began = time.monotonic()
    with torch.no_grad():
        for start in range(0, clips, batch):
            rows = range(start, min(start + batch, clips))
            latents = generate(plan, [captions[i] for i in rows], list(rows), device)
            video = torch.cat([vae.decode(z) for z in latents.split(16)]) / 2 + 0.5
            verdicts.append(judge(video, scenes[rows.start : rows.stop].to(device)))
            videos.append((video * 255).round().byte().cpu())
            say(f"{rows.stop}/{clips} in {time.monotonic() - began:.0f} s")
    return joined(verdicts), torch.cat(videos)


def joined(parts: Sequence[Verdict]) -> Verdict:
    """Verdicts on parts as one, on the CPU."""
    import dataclasses

    import torch

    names = [f.name for f in dataclasses.fields(Verdict)]
    return Verdict(**{n: torch.cat([getattr(p, n).cpu() for p in parts]) for n in names})


def compare(verdict: Verdict, videos: Tensor, first: Verdict, reference: Tensor) -> dict[str, Any]:
    """Figures of one schedule; differences and PSNR are to the first schedule's."""
    right, base = verdict.all_right.double(), first.all_right.double()
    n = len(right)
    difference = right - base
    error = (videos.float() - reference.float()).square().flatten(1).mean(1) / 255**2
    psnr = -10 * (error + 1e-12).log10()
    return {
        **{k: round(v, 4) for k, v in verdict.rates().items()},
        "standard_error": round(float((right.mean() * (1 - right.mean()) / n).sqrt()), 4),
        "difference": round(float(difference.mean()), 4),
        "difference_standard_error": (
            round(float(difference.std() / math.sqrt(n)), 4) if n > 1 else None
        ),
        "psnr_median": round(float(psnr.median()), 2) if bool((error > 0).any()) else None,
    }


def check_judged(plan: gatekit.Plan, path: Path) -> None:
    """Raise InputError where a schedule is of another family: the judge knows one world."""
    if plan.family.name != "tinywan":
        raise gatekit.InputError(
            "only schedules of the small model can be judged",
            where=str(path),
            value=plan.family.name,
            remedy="write 'family: {use: tinywan}'",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, evaluate, print a line of JSON a schedule. Returns the exit code."""
    try:
        _evaluate(arguments)
    except gatekit.UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _evaluate(arguments: Sequence[str] | None) -> None:
    import torch

    parser = argparse.ArgumentParser(
        prog="python -m gatekit_tinywan.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("schedules", nargs="+", type=Path, metavar="SCHEDULE")
    parser.add_argument("--clips", type=positive, default=1024, help="held-out captions (1024)")
    parser.add_argument(
        "--batch", type=positive, default=None, help="videos at a time (128 on a GPU, else 8)"
    )
    parser.add_argument("--device", default=None, help="cpu or cuda; default: what is there")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a key of all schedules"
    )
    parser.add_argument("--json", type=Path, default=None, help="also write the lines here")
    args = parser.parse_args(arguments)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    batch = args.batch or (128 if device.startswith("cuda") else 8)
    if args.json is not None:
        gatekit.check_out(args.json, "--json")
    plans: list[gatekit.Plan] = []  # all, before the first is run
    for path in args.schedules:
        schedule = gatekit.load_schedule(path, overrides=args.set)
        plans.append(gatekit.resolve(schedule, device=device))
        check_judged(plans[-1], path)
    gatekit.check_device(device, "--device", "choose another one: --device cpu")
    first: tuple[Verdict, Tensor] | None = None
    lines: list[dict[str, Any]] = []
    for path, plan in zip(args.schedules, plans, strict=True):
        began = time.monotonic()
        verdict, videos = evaluate(plan, args.clips, device=device, batch=batch, say=lambda _: None)
        first = first or (verdict, videos)
        seconds = round(time.monotonic() - began, 1)
        figures = compare(verdict, videos, *first)
        lines.append({"schedule": path.stem, "clips": args.clips, "seconds": seconds, **figures})
        print(json.dumps(lines[-1]), flush=True)
    if args.json is not None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        gatekit.write_atomic(args.json, text.encode())


if __name__ == "__main__":
    raise SystemExit(main())
