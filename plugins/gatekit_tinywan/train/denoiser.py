"""Stages 3 and 4: the base model on all noise levels, then one expert on each side of the gate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gatekit_tinywan.train import fit, seen
from gatekit_tinywan.train.config import Config
from gatekit_tinywan.train.dataset import Dataset, code_classes
from gatekit_tinywan.train.models import TextConditioned
from gatekit_tinywan.train.rounding import Rounding

HINT = 0.05  # weight of the text encoder's attribute loss, which speeds up its start


@dataclass(frozen=True)
class Range:
    """Noise levels a model is trained on: uniform in u, s = shift u / (1 + (shift - 1) u)."""

    low: float
    high: float
    shift: float

    def draw(self, batch: int, device: str) -> Tensor:
        """Stratified draws ``[batch]`` of s."""
        u_low, u_high = (s / (self.shift - (self.shift - 1) * s) for s in (self.low, self.high))
        strata = (torch.arange(batch, device=device) + torch.rand(batch, device=device)) / batch
        order = torch.rand(batch, device=device).argsort()  # randperm would wait for the device
        u = u_low + (u_high - u_low) * strata[order]
        return self.shift * u / (1 + (self.shift - 1) * u)


class AttributeHeads(nn.Module):
    """Reads every attribute off the mean embedding; thrown away after training."""

    def __init__(self, width: int, classes: list[int]) -> None:
        super().__init__()
        self.classes = classes
        self.out = nn.Linear(width, sum(classes))

    def forward(self, text: Tensor, lengths: Tensor, codes: Tensor) -> Tensor:
        """Mean cross-entropy over the attributes."""
        pooled = text.float().sum(1) / lengths[:, None]
        logits = self.out(pooled).split(self.classes, dim=1)
        losses = [F.cross_entropy(part, codes[:, i]) for i, part in enumerate(logits)]
        return torch.stack(losses).mean()


def train_denoiser(
    model: TextConditioned,
    data: Dataset,
    noise: Range,
    seconds: float,
    rate: float,
    config: Config,
    device: str,
    log: fit.Log,
    *,
    name: str,
    with_text: bool,
    together: bool,
    group: dist.ProcessGroup | None = None,
    rounded: float = 0.0,
) -> TextConditioned:
    """Train in place and return ``model`` with averaged weights.

    Args:
        model: Text encoder and transformer.
        data: The encoded clips.
        noise: Noise levels to train on.
        seconds: How long.
        rate: Peak learning rate.
        config: Batch and shares.
        device: ``cuda`` or ``cpu``.
        log: Where to write progress.
        name: Stage, for the log.
        with_text: Train the text encoder too (the base); experts keep it frozen.
        together: The processes of ``group`` train one model; else each trains its own.
        group: Some of the processes; None: all.
        rounded: Share of the steps that see the block matrices as a Q2_K file would hold them.
    """
    torch.manual_seed(config.seed)
    heads = AttributeHeads(model.text.config.d_model, code_classes()).to(device)
    torch.manual_seed(1000 + config.seed + fit.world()[0] + 10 * len(name))
    model.text.requires_grad_(with_text)
    trained = [p for p in model.parameters() if p.requires_grad]
    trained += list(heads.parameters()) if with_text else []
    matrices = [p for n, p in model.named_parameters() if p.requires_grad and _is_matrix(n, p)]
    chosen = {id(p) for p in matrices}
    opt = fit.Together(matrices, [p for p in trained if id(p) not in chosen], device)
    average = fit.Average(model, config.ema_decay)
    rounding = Rounding([p for p in matrices if p.shape[-1] % 256 == 0], rounded)
    empty = _empty(data)

    def gradients() -> Tensor:
        if rounded:
            rounding.apply()
        drawn = _draw(data, noise, config, empty)
        half = device == "cuda"
        with torch.autocast(device, torch.bfloat16, enabled=half, cache_enabled=False):
            with torch.set_grad_enabled(with_text):
                text = model.embed(drawn.ids, drawn.mask)
            v = model(drawn.x, drawn.sigma, text)
        error = v.float() - drawn.velocity
        loss = error.square().mean()
        counted = loss if data.seen is None else seen.weighted(error, data.seen)
        total = counted
        if with_text:
            total = counted + HINT * heads(text, drawn.lengths, data.codes[drawn.rows])
        for p in trained:
            p.grad = None
        total.backward()
        if rounded:
            rounding.undo()
        return torch.stack([loss, counted]).detach()

    step = fit.Step(gradients, trained, opt, average, device, together=together, group=group)
    clock, progress = fit.Clock(seconds), 0.0  # from here: compiling is not training
    sums, since = torch.zeros(2, device=device), 0
    while progress < 1:
        sums += step(fit.learning_rate(rate, progress, decay_from=config.decay_from))
        since += 1
        clock.steps += 1
        if clock.steps % 10 == 0:
            progress = clock.progress
        if clock.steps % 1000 == 0 or progress >= 1:
            plain, counted = (float(v) / since for v in sums)
            log(stage=name, step=clock.steps, progress=progress, loss=plain, seen=counted)
            sums.zero_()
            since = 0
    average.store()
    return model


@torch.no_grad()
def examples(
    model: TextConditioned, data: Dataset, noise: Range, config: Config, count: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """What the model is called with in training, ``count`` times: (input, s, text)."""
    empty = _empty(data)
    for _ in range(count):
        drawn = _draw(data, noise, config, empty)
        yield drawn.x, drawn.sigma, model.embed(drawn.ids, drawn.mask)


@torch.no_grad()
def losses(
    model: TextConditioned, data: Dataset, noise: Range, config: Config, count: int
) -> tuple[float, float]:
    """Mean squared error, and the loss that counts, over ``count`` batches as in training."""
    empty, sums = _empty(data), torch.zeros(2, device=data.latents.device, dtype=torch.float64)
    for _ in range(count):
        drawn = _draw(data, noise, config, empty)
        v = model(drawn.x, drawn.sigma, model.embed(drawn.ids, drawn.mask))
        error = v.float() - drawn.velocity
        loss = error.square().mean()
        sums += torch.stack([loss, loss if data.seen is None else seen.weighted(error, data.seen)])
    plain, counted = (sums / count).tolist()
    return plain, counted


class Drawn(NamedTuple):
    """A batch as the model is called with it, and what it should say.

    Args:
        rows: Of the dataset, ``[B]``.
        x: Noised clips with mask and condition, ``[B, 36, T, h, w]``.
        sigma: ``[B]``.
        ids: Token ids, ``[B, L]``.
        mask: 1 where there is a token.
        lengths: Tokens, ``[B]``.
        velocity: n - x0, ``[B, 16, T, h, w]``.
    """

    rows: Tensor
    x: Tensor
    sigma: Tensor
    ids: Tensor
    mask: Tensor
    lengths: Tensor
    velocity: Tensor


def _draw(data: Dataset, noise: Range, config: Config, empty: Tensor) -> Drawn:
    rows, x0, condition, ids, lengths = _batch(data, config, empty)
    sigma = noise.draw(len(rows), str(x0.device))
    s = sigma.view(-1, 1, 1, 1, 1)
    n = torch.randn_like(x0)
    mask = (torch.arange(ids.shape[1], device=x0.device) < lengths[:, None]).long()
    x = torch.cat([(1 - s) * x0 + s * n, condition], dim=1)
    return Drawn(rows, x, sigma, ids, mask, lengths, n - x0)


def _empty(data: Dataset) -> Tensor:
    """Token ids of an empty prompt: "</s>" alone."""
    empty = torch.zeros_like(data.ids[0])
    empty[0] = 1
    return empty


def _is_matrix(name: str, p: nn.Parameter) -> bool:
    """A weight matrix inside a block, but for the table of relative positions."""
    return ".block" in name and p.ndim == 2 and "relative" not in name


def _batch(
    data: Dataset, config: Config, empty: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(rows, x0, mask and condition, ids, lengths); the first part of the rows has an image."""
    device, batch = data.latents.device, config.batch
    images = round(batch * config.image_share)
    shown = torch.randint(len(data.conditions), (images,), device=device)
    free = torch.randint(len(data.latents), (batch - images,), device=device)
    if data.hard is not None and len(data.hard):
        hard = round(len(free) * config.hard_share)
        free[:hard] = data.hard[torch.randint(len(data.hard), (hard,), device=device)]
    rows = torch.cat([shown, free])
    x0 = data.latents[rows].float()
    condition = torch.zeros(batch, 20, *x0.shape[2:], device=device)
    condition[:images, :4, 0] = 1
    condition[:images, 4:] = data.conditions[shown].float()
    ids, lengths = data.ids[rows], data.lengths[rows]
    dropped = torch.rand(batch, device=device) < config.text_dropout
    ids = torch.where(dropped[:, None], empty, ids)
    return rows, x0, condition, ids, lengths.masked_fill(dropped, 1)
