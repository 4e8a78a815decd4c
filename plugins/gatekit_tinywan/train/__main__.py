"""``python -m gatekit_tinywan.train --out DIR``: make the shipped weights from nothing.

Stages: ``vae``, ``base``, ``experts``; each continues from the files of the one before, so that
``--stages experts`` may run later. With ``torchrun --nproc-per-node 2`` the base is trained on
both GPUs and each trains one expert; with 4, two train each. With ``--start-from FOLDER`` the
shipped experts are trained further, on the shipped autoencoder and text encoder: what a longer
training would have given need not be made in one go. ``--start-from FOLDER --stages quantise``
writes the shipped files anew from the experts' fp16 files; without ``--start-from``, from the
experts trained into ``--out``. ``--start-from A --average-with B`` writes those means of both
folders' experts that err least on clips of ``--seed``, which should be none that they were trained
on. ``--stages judge`` says what the judge sees in true clips, as drawn and through the autoencoder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gatekit_tinywan.train import fit, seen, shipped
from gatekit_tinywan.train.arguments import parsed
from gatekit_tinywan.train.average import average
from gatekit_tinywan.train.config import REHEARSAL, Config
from gatekit_tinywan.train.dataset import CLIPS_OF_A_SEED, FIRST, Captions, Dataset, build_dataset
from gatekit_tinywan.train.denoiser import Range, train_denoiser
from gatekit_tinywan.train.experts import quantise, ranges, report, restored, train_experts
from gatekit_tinywan.train.models import TextConditioned, build_vae, restore, save
from gatekit_tinywan.train.vae import measure_vae, train_vae
from gatekit_tinywan.world import HELD_OUT_SEED, TRAIN_SEED, judge, render, sample_scenes
from gatekit_wan22.whole_clip import decode_clip, encode_clip


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and run the stages."""
    args = parsed(arguments, __doc__)
    config = REHEARSAL if args.rehearse else Config()
    given = {k: v for k, v in vars(args).items() if k in config.as_dict() and v is not None}
    config = replace(config, **given)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if "RANK" in os.environ:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    rank, size = fit.world()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    log = fit.Log(out / "train.log")
    log(
        config=config.as_dict(),
        device=_device_name(device),
        processes=size,
        torch=torch.__version__,
    )
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True

    stages = args.stages.split(",")
    judged = args.judge_clips or (1024 if device == "cuda" else 4)
    whole, config = config, config.share(size)
    # A part of another seed sees other clips.
    offset = FIRST + config.seed * CLIPS_OF_A_SEED + rank * config.clips
    drawn = {"base", "experts", "quantise", "average"} & set(stages)
    captions = Captions(config.clips, offset) if drawn else None

    statistics = None
    if args.start_from:
        vae, statistics = shipped.load_vae(args.start_from)
        vae = vae.to(device)
    elif "vae" in stages:
        vae = train_vae(config, device, log)
        if rank == 0:
            save(out / "vae", vae)
            _judge_ceiling(vae, device, log, judged)
    else:
        vae = build_vae().to(device)
        restore(out / "vae", vae)
    if "vae" not in stages:
        log(stage="vae", restored=True, **measure_vae(vae, device, 8))
    if "judge" in stages and rank == 0:
        _judge_ceiling(vae, device, log, judged)
    if captions is None:
        return

    vae.eval()
    data = build_dataset(vae, captions, config.clips, offset, device, statistics)
    if config.seen_share > 0:
        data = replace(data, seen=_seen(vae, data, config, offset))
    log(
        stage="dataset", clips=len(data.latents), mean=data.mean.tolist(), std=data.std.tolist(),
        seen=None if data.seen is None else data.seen.square().sum(0).tolist(),
    )  # fmt: skip

    model = TextConditioned().to(device)
    if device == "cuda":
        model.transformer.compile_repeated_blocks(fullgraph=True)
    if "base" in stages:
        torch.manual_seed(config.seed)
        model.load_state_dict(_fresh(config))
        noise = Range(0.0, 1.0, config.base_shift)
        train_denoiser(
            model, data, noise, config.base_seconds, config.base_rate, config, device, log,
            name="base", with_text=True, together=True,
        )  # fmt: skip
        if rank == 0:
            save(out / "base", model, parts=2)
            report(model, model, vae, data, device, log, "base")
    elif "experts" in stages and not args.start_from:
        restore(out / "base", model)
    if not {"experts", "quantise", "average"} & set(stages):
        return
    if args.start_from:
        starts = {n: shipped.load_expert(args.start_from, n).to(device) for n in shipped.EXPERTS}
        if rank == 0:
            report(starts["high"], starts["low"], vae, data, device, log, "before")
    elif "experts" in stages:
        starts = dict.fromkeys(shipped.EXPERTS, model)
    else:
        starts = restored(out, device)
    if "experts" in stages:
        train_experts(model, starts, vae, data, whole, device, log, out)
    else:
        if args.average_with:
            others = {n: shipped.load_expert(args.average_with, n).to(device) for n in starts}
            starts = average(starts, others, ranges(whole), data, config, log)
            report(starts["high"], starts["low"], vae, data, device, log, "average")
        quantise(starts, vae, data, whole, device, out)


def _seen(vae: Any, data: Dataset, config: Config, offset: int) -> torch.Tensor:
    """How the loss weights the latents' errors; the same on every process."""
    count = min(64 if data.latents.is_cuda else 2, len(data.latents))
    scenes = sample_scenes(TRAIN_SEED, range(offset, offset + count)).to(data.latents.device)
    form = seen.metric(vae, data.latents[:count], scenes, (data.mean, data.std))
    return seen.root(fit.mean_over_processes(form), config.seen_share)


def _fresh(config: Config) -> dict[str, torch.Tensor]:
    """The same initial weights on every process."""
    torch.manual_seed(config.seed)
    return TextConditioned().state_dict()


@torch.no_grad()
def _judge_ceiling(vae: Any, device: str, log: fit.Log, clips: int) -> None:
    """What the judge says of true clips, as drawn and through the autoencoder."""
    scenes = sample_scenes(HELD_OUT_SEED, range(clips), split="held_out").to(device)
    videos, coded = [], []
    for i in range(0, clips, 16):
        video = render(scenes[i : i + 16], device=device)
        videos.append(video)
        coded.append(decode_clip(vae, encode_clip(vae, video * 2 - 1)[0]).clamp(-1, 1) / 2 + 0.5)
    log(judge="drawn", clips=clips, **judge(torch.cat(videos), scenes).rates())
    log(judge="through the autoencoder", clips=clips, **judge(torch.cat(coded), scenes).rates())


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "cpu"


if __name__ == "__main__":
    main()
