"""What the quantiser weighs its errors with, for files that are not shipped.

As for the shipped files: the mean squares of each layer's inputs (``train/importance.py``). The
inputs are those of fp16 runs on captions of the split ``tune``, which no result is made from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gatekit
from gatekit_tinywan.batch import Batch, embed
from gatekit_tinywan.family import IMAGE_CHANNELS
from gatekit_tinywan.gating.arms import Arm, parts_of
from gatekit_tinywan.gating.setup import Options, plan_of
from gatekit_tinywan.gating.weights import EXPERTS, file_of
from gatekit_tinywan.study.prompts import scenes_of, seeds_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

CLIPS = 8


def importance_of(options: Options, clips: int = CLIPS) -> dict[str, Mapping[str, np.ndarray]]:
    """Mean squares of every block matrix's inputs, by expert and matrix."""
    import torch

    from gatekit_tinywan.train.importance import importance
    from gatekit_tinywan.train.shipped import load_expert

    arm = Arm("calibration", "precision", parts_of(["fp16"] * 3), ("unipc",) * 3)
    plan = plan_of(arm, options)
    captions = scenes_of("tune", range(clips)).captions()
    prompts = embed(plan, captions, seeds_of("tune", range(clips)), options.device)
    experts = {phase.name: part.expert for phase, part in zip(plan.phases, arm.parts, strict=True)}
    seen: dict[str, list[tuple[Tensor, float]]] = {e: [] for e in EXPERTS}
    start: list[Tensor] = []  # the state that the next step starts from

    def watch(state: gatekit.State, record: gatekit.Record, denoised: Tensor) -> None:
        seen[experts[record.phase]].append((start[-1], record.sigma))
        start.append(state.x)

    found: dict[str, Mapping[str, Any]] = {}
    with torch.no_grad():
        batch = Batch(plan, prompts, options.device)
        start.append(batch.start())
        batch.sample(start[0], [watch])
        for expert in EXPERTS:
            folder = _folder(plan, expert)
            model = load_expert(folder, expert).transformer.to(options.device).eval()
            found[expert] = importance(model, _calls(seen[expert], prompts.text))
    return found


def _folder(plan: gatekit.Plan, expert: str) -> Path:
    name = file_of(expert, "fp16")
    return next(file.parent for file in plan.files() if file.name == name)


def _calls(
    seen: list[tuple[Tensor, float]], text: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(input, s, text): no first frame, so mask and condition are zeros."""
    import torch

    for x, sigma in seen:
        zeros = x.new_zeros(len(x), IMAGE_CHANNELS, *x.shape[2:])
        yield torch.cat([x, zeros], dim=1), x.new_full((len(x),), sigma), text
