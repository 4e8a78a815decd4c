"""What every stage of the training shares: clock, learning rate, averages, captured steps, log."""

# torch._foreach_*: one launch for a list of tensors; what torch.optim itself is built on.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gatekit_tinywan.train.muon import Muon


def world() -> tuple[int, int]:
    """(rank, number of processes)."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


class Log:
    """Lines of JSON, on the terminal and in a file; only the first process writes."""

    def __init__(self, path: Path) -> None:
        self.path, self.start = path, time.monotonic()

    def __call__(self, **values: Any) -> None:
        """Write one line."""
        if world()[0] != 0:
            return
        values = {k: round(v, 6) if isinstance(v, float) else v for k, v in values.items()}
        line = json.dumps({"t": round(time.monotonic() - self.start, 1), **values})
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(line + "\n")


class Clock:
    """Progress of a stage that is given seconds, not steps."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.start, self.steps = seconds, time.monotonic(), 0

    def start_again(self) -> None:
        """Forget the time so far; the steps stay counted."""
        self.start = time.monotonic()

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end; the same on every process."""
        value = torch.tensor(min(1.0, (time.monotonic() - self.start) / self.seconds))
        if dist.is_initialized():
            value = value.cuda() if torch.cuda.is_available() else value
            dist.broadcast(value, 0)
        return float(value)


def learning_rate(
    peak: float, progress: float, warmup: float = 0.02, decay_from: float = 0.3
) -> float:
    """Linear warm-up, flat to ``decay_from``, cosine to a hundredth; with 1 it stays flat."""
    if progress < warmup:
        return peak * (0.02 + 0.98 * progress / warmup)
    if decay_from >= 1:
        return peak
    fraction = max(0.0, (progress - decay_from) / (1 - decay_from))
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))


class Together:
    """Muon for ``matrices`` and AdamW for ``rest``, as one optimiser.

    ``ratio`` is Muon's learning rate in units of AdamW's.
    """

    def __init__(
        self, matrices: list[nn.Parameter], rest: list[nn.Parameter], device: str, ratio: float = 1
    ) -> None:
        cuda = device == "cuda"
        lr = torch.zeros((), device=device) if cuda else 0.0
        # fused and capturable: one launch, and a captured step reads the present learning rate.
        adam = torch.optim.AdamW(
            rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=cuda, capturable=cuda
        )
        self.muon, self.adam, self.ratio = Muon(matrices, 0.0), adam, ratio

    def set_rate(self, rate: float) -> None:
        """Set AdamW's learning rate, and Muon's in proportion."""
        self.muon.param_groups[0]["lr"].fill_(rate * self.ratio)
        for group in self.adam.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def step(self) -> None:
        """One update by both."""
        self.muon.step()
        self.adam.step()


def average_gradients(params: list[nn.Parameter], group: dist.ProcessGroup | None = None) -> None:
    """Mean of the gradients over the group's processes (all without one), in one message."""
    size = dist.get_world_size(group) if dist.is_initialized() else 1
    if size == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat, group=group)
    flat /= size
    parts = flat.split([g.numel() for g in grads])
    torch._foreach_copy_(grads, [p.view_as(g) for p, g in zip(parts, grads, strict=True)])


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of ``value`` over all processes."""
    _, size = world()
    if size > 1:
        dist.all_reduce(value)
        value = value / size
    return value


class Average:
    """Exponential moving average of parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.count = model, decay, 0
        self.params = list(model.parameters())
        self.shadow = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self) -> None:
        """Young averages follow fast, so that the first steps are forgotten."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.params], 1 - decay)

    @torch.no_grad()
    def store(self) -> None:
        """Put the average into the model."""
        torch._foreach_copy_([p.data for p in self.params], self.shadow)


def captured(step: Callable[[], Tensor], device: str) -> Callable[[], Tensor]:
    """``step`` as one CUDA graph; on other devices ``step`` itself."""
    if device != "cuda":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # "thread_local": the communication library's watchdog thread may go on.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        loss = step()

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


class Step:
    """One training step: gradients, their mean over the processes, update.

    Args:
        gradients: Computes the loss, leaves new gradients in ``params``, returns the loss. It
            must not read a value back from the device, for it is captured.
        params: All parameters trained.
        opt: Updates them.
        average: Follows them.
        device: ``cuda`` (two CUDA graphs) or ``cpu``.
        together: The processes of ``group`` (all without one) train one model.
        group: Some of the processes.
    """

    def __init__(
        self,
        gradients: Callable[[], Tensor],
        params: list[nn.Parameter],
        opt: Together,
        average: Average,
        device: str,
        *,
        together: bool = True,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.params, self.opt, self.average = params, opt, average
        self.together, self.group = together, group

        def update() -> Tensor:
            norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
            opt.step()
            return norm

        # Capturing runs the steps a few times: at rate 0, so that the weights stay as they are.
        opt.set_rate(0.0)
        self.gradients = captured(gradients, device)
        if device == "cuda":
            self.gradients()  # capturing has only recorded: the update needs real gradients
        self.update = captured(update, device)

    def __call__(self, rate: float) -> Tensor:
        """One step at learning rate ``rate``; the loss before it."""
        self.opt.set_rate(rate)
        loss = self.gradients()
        if self.together:
            average_gradients(self.params, self.group)
        self.update()
        self.average.update()
        return loss
