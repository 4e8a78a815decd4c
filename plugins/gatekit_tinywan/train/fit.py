"""What every stage of the training shares: clock, learning rate, averages, captured steps, log."""

# torch._foreach_*: one launch for a list of tensors; what torch.optim itself is built on.
# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
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


def learning_rate(peak: float, progress: float, warmup: float = 0.02) -> float:
    """Linear warm-up, flat to the middle, cosine to a hundredth."""
    if progress < warmup:
        return peak * (0.02 + 0.98 * progress / warmup)
    fraction = max(0.0, (progress - 0.3) / 0.7)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))


class Together:
    """Several optimisers as one: matrices of the blocks by Muon, the rest by AdamW."""

    def __init__(self, model: nn.Module, others: Iterable[nn.Parameter], rate: float, device: str):
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = list(others)
        for name, p in model.named_parameters():
            if p.requires_grad:
                inside = ".block" in name and p.ndim == 2
                (matrices if inside and "relative" not in name else rest).append(p)
        self.parts = [Muon(matrices, rate), optimizer(rest, rate, device)]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts, for ``set_rate``."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One update by every part."""
        for part in self.parts:
            part.step()


def optimizer(params: Iterable[nn.Parameter], rate: float, device: str) -> torch.optim.AdamW:
    """AdamW, fused where that exists."""
    cuda = device == "cuda"
    return torch.optim.AdamW(
        list(params), lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=cuda
    )


def set_rate(opt: Any, rate: float) -> None:
    """Set the learning rate of every group."""
    for group in opt.param_groups:
        group["lr"] = rate


def average_gradients(params: list[nn.Parameter]) -> None:
    """Mean of the gradients over all processes, in one message."""
    _, size = world()
    if size == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
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
