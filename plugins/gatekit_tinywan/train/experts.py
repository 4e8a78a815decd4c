"""The experts: trained on from the base or from their files, written as they are shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gatekit_tinywan.train import check, export, fit, shipped
from gatekit_tinywan.train.config import BOUNDARY, Config
from gatekit_tinywan.train.dataset import Dataset
from gatekit_tinywan.train.denoiser import Range, examples, train_denoiser
from gatekit_tinywan.train.importance import importance
from gatekit_tinywan.train.models import TextConditioned, restore, save

CALIBRATION = 32  # clips a call; eight calls show every noise level


def ranges(config: Config) -> dict[str, Range]:
    """The noise levels of each expert that this process has to do with."""
    rank, size = fit.world()
    both = {"high": Range(BOUNDARY, 1.0, 5.0), "low": Range(0.0, BOUNDARY, config.base_shift)}
    return {name: both[name] for i, name in enumerate(both) if size == 1 or rank % 2 == i}


def train_experts(
    model: TextConditioned, starts: Mapping[str, TextConditioned], vae: object, data: Dataset,
    config: Config, device: str, log: fit.Log, out: Path,
) -> None:  # fmt: skip
    """Train each expert from its own start, in ``model``, whose blocks are compiled.

    Of several processes the even ones train the high expert, the odd ones the low one.
    """
    rank, size = fit.world()
    # Every process makes both groups, in one order.
    new: Any = dist.new_group  # its annotation has None, which no member gets
    groups: Any = [new(range(i, size, 2)) for i in range(2)] if size > 2 else None
    group = groups[rank % 2] if groups else None
    states = {
        name: {k: v.clone() for k, v in start.state_dict().items()}
        for name, start in starts.items()
    }
    for name, noise in ranges(config).items():
        model.load_state_dict(states[name])
        train_denoiser(
            model, data, noise, config.seconds_of(name), config.expert_rate, config, device, log,
            name=name, with_text=False, together=size > 2, group=group,
            rounded=config.rounded_share,
        )  # fmt: skip
        if rank >= 2:
            continue
        save(out / name, model, parts=2)
        _write(name, model, noise, vae, data, config, device, out)
    if size > 1:
        dist.barrier()
    if rank == 0:
        experts = restored(out, device)
        report(experts["high"], experts["low"], vae, data, device, log, "experts")


def quantise(
    starts: Mapping[str, TextConditioned], vae: object, data: Dataset, config: Config, device: str,
    out: Path,
) -> None:  # fmt: skip
    """Write the files of experts as they are."""
    for name, noise in ranges(config).items():
        if fit.world()[0] < 2:
            _write(name, starts[name], noise, vae, data, config, device, out)


def _write(
    name: str, model: TextConditioned, noise: Range, vae: object, data: Dataset, config: Config,
    device: str, out: Path,
) -> None:  # fmt: skip
    """The shipped files of one expert; with the high one those that both share."""
    torch.manual_seed(config.seed)
    few = replace(config, batch=min(config.batch, CALIBRATION))
    # Compiled blocks pass by the hooks that watch the inputs.
    plain = TextConditioned().to(device)
    plain.load_state_dict(model.state_dict())
    weights = importance(plain.transformer, examples(plain, data, noise, few, 8))
    export.export_expert(out / "weights", name, plain.transformer, weights)
    if name == "high":
        export.export_text_encoder(out / "weights", model.text)
        export.export_vae(out / "weights", vae, data.mean, data.std)


def restored(out: Path, device: str) -> dict[str, TextConditioned]:
    """The experts that were trained into ``out``."""
    experts = {name: TextConditioned().to(device) for name in shipped.EXPERTS}
    for name, expert in experts.items():
        restore(out / name, expert)
    return experts


def report(
    high: TextConditioned, low: TextConditioned, vae: Any, data: Dataset, device: str, log: fit.Log,
    name: str,
) -> None:  # fmt: skip
    """Accuracy on held-out captions, and a few videos to look at."""
    clips, steps = (512, 20) if device == "cuda" else (4, 4)
    rates, videos = check.accuracy(
        high, low, vae, (data.mean, data.std), device, clips, steps=steps
    )
    log(check=name, clips=clips, steps=steps, **rates)
    torch.save((videos[:16] * 255).byte().cpu(), log.path.with_name(f"videos_{name}.pt"))
