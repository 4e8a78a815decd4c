"""The command line of a training."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence, Set
from pathlib import Path

from gatekit_tinywan.family import WEIGHTS
from gatekit_tinywan.train.config import Config

ALL = "vae,base,experts"  # stages of a training from nothing
STAGES = {*ALL.split(","), "quantise", "average", "judge"}
MODELS = ("high", "low", "umt5")  # what an expert is read from
SHARES = (
    "rounded_share", "image_share", "text_dropout", "hard_share", "seen_share", "decay_from",
)  # fmt: skip
# Of ``Config``: what each is, for the help.
OF_CONFIG: dict[str, tuple[type, str]] = {
    "vae_seconds": (float, "seconds of the autoencoder"),
    "base_seconds": (float, "seconds of the base model"),
    "expert_seconds": (float, "seconds of each expert"),
    "low_seconds": (float, "seconds of the low-noise expert, if others"),
    "clips": (int, "clips to train on"),
    "batch": (int, "clips of a step"),
    "base_rate": (float, "learning rate of the base model"),
    "expert_rate": (float, "learning rate of the experts"),
    "vae_rate": (float, "learning rate of the autoencoder"),
    "rounded_share": (float, "share of steps with weights as in a Q2_K file"),
    "image_share": (float, "share of clips with an image"),
    "text_dropout": (float, "share of clips without their text"),
    "hard_share": (float, "share, of clips without an image, with a small cross"),
    "seen_share": (float, "share of the loss that is weighted by what the decoder makes of it"),
    "decay_from": (float, "share of the time with the full rate; 1: another part follows"),
    "seed": (int, "of clips and noise"),
}


def parsed(arguments: Sequence[str] | None, about: str | None) -> argparse.Namespace:
    """What the command line says, looked at before anything is computed or written.

    Raises:
        SystemExit: With 2, and one line on stderr: it cannot be.
    """
    parser = argparse.ArgumentParser(prog="python -m gatekit_tinywan.train", description=about)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and log")
    parser.add_argument(
        "--stages", default=None, help=f"some of {ALL}; or quantise, average, judge"
    )
    parser.add_argument("--start-from", type=Path, help="folder of shipped files: train on")
    parser.add_argument("--average-with", type=Path, help="another folder of shipped files")
    parser.add_argument("--judge-clips", type=int, help="true clips to judge (1024; 4 on a CPU)")
    parser.add_argument("--rehearse", action="store_true", help="tiny and short, to try it out")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="allow --out where it loses the shipped files, or those begun with",
    )
    for name, (kind, said) in OF_CONFIG.items():
        usual = getattr(Config, name)
        default = "" if usual is None else f" ({usual:g})"
        parser.add_argument(_option(name), type=kind, metavar="X", help=said + default)
    args = parser.parse_args(arguments)
    for name in ("clips", "batch", "judge_clips"):
        if (given := getattr(args, name)) is not None and given < 1:
            parser.error(f"{_option(name)}: a whole number from 1 on (got {given})")
    for name in ("base_rate", "expert_rate", "vae_rate"):
        if (given := getattr(args, name)) is not None and not given > 0:
            parser.error(f"{_option(name)}: above 0 (got {given})")
    for name in SHARES:
        if (given := getattr(args, name)) is not None and not 0 <= given <= 1:
            parser.error(f"{_option(name)}: from 0 to 1 (got {given})")
    for name in ("vae_seconds", "base_seconds", "expert_seconds", "low_seconds"):
        if (given := getattr(args, name)) is not None and not given > 0:
            parser.error(f"{_option(name)}: above 0; --stages says what is trained")
    usual = "average" if args.average_with else "experts" if args.start_from else ALL
    args.stages = args.stages or usual
    named = set(args.stages.split(","))
    if unknown := sorted(named - STAGES):
        parser.error(f"--stages: no {', '.join(unknown)}; there are {', '.join(sorted(STAGES))}")
    if args.start_from and named & {"vae", "base"}:
        parser.error("--start-from: the stages are experts, quantise, average and judge")
    if bool(args.average_with) != ("average" in named) or (
        args.average_with and not args.start_from
    ):
        parser.error("--average-with: with --start-from, and --stages average or none")
    if args.average_with and "RANK" in os.environ:
        parser.error("--average-with: in one process")
    if args.average_with and "experts" in named:
        parser.error(
            "--average-with: a mean is of experts as they are; train further in a next run"
        )
    if wrong := _lacking(args, named) or (not args.overwrite and _lost(args, named)):
        parser.error(wrong)
    return args


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _lacking(args: argparse.Namespace, stages: Set[str]) -> str | None:
    """What of the files that the stages begin with is not there, or None."""
    if args.out.exists() and not args.out.is_dir():
        return f"--out: {args.out} is a file; name a folder"
    experts = () if stages <= {"judge"} else MODELS
    for option, needed in (("start_from", ("vae", *experts)), ("average_with", MODELS)):
        folder = getattr(args, option)
        for name in needed if folder else ():
            if not (folder / f"tinywan_{name}_fp16.safetensors").is_file():
                return (
                    f"{_option(option)}: no tinywan_{name}_fp16.safetensors in {folder}; name a "
                    "folder of shipped files, such as the folder 'weights' of a training"
                )
    if args.start_from:
        return None
    first = [("vae", "vae")] if "vae" not in stages else []
    if "experts" in stages and "base" not in stages:
        first.append(("base", "base"))
    if "quantise" in stages and "experts" not in stages:
        first += [(name, "experts") for name in ("high", "low")]
    for name, stage in first:
        if not any(args.out.glob(f"{name}.*.safetensors")):
            return (
                f"--stages: {args.out} has no files of the stage {stage}; run it first, or name a "
                "folder of shipped files with --start-from"
            )
    return None


def _lost(args: argparse.Namespace, stages: Set[str]) -> str | None:
    """Which files ``--out`` would be written over, or among, or None."""
    out, written = args.out.resolve(), (args.out / "weights").resolve()
    begun = () if stages <= {"judge"} else ("start_from", "average_with")
    lost = [
        f"the files of {_option(option)} would be written over"
        for option in begun
        if (folder := getattr(args, option)) and folder.resolve() == written
    ]
    if WEIGHTS.resolve() in (written, out, *out.parents):
        lost = [f"the shipped weights lie in {WEIGHTS}"]
    if not lost:
        return None
    return f"--out: {lost[0]} (got {args.out}); name another folder, or add --overwrite"
