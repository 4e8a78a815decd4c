"""Run a k-diffusion function over one interval, as if it had run all those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatekit import StepContext, StepResult
from gatekit_kdiffusion.package import Held, noise, sampling
from gatekit_kdiffusion.view import View

if TYPE_CHECKING:
    from gatekit_kdiffusion.samplers import KDiffusion


def advance(
    sampler: KDiffusion, c: StepContext, to: float, intervals: int | None = None
) -> StepResult:
    """From (c.x, c.sigma) to ``to``.

    The function is run over the sigmas of ``c.past`` too. For those its model answers from the
    past, after it has put the past's own state into x; so at ``c.sigma`` the function holds in
    its local variables what it would hold had it run there itself.

    Args:
        sampler: Whose function.
        c: Where the run stands.
        to: Where to go, 0 included.
        intervals: Of the whole run, which ``s_churn`` is divided by.
    """
    view = View(c.path, sampler.lifted, c.sigma, to)
    if not view.regular(c.sigma):  # no signal yet: nothing to lift
        denoised = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, denoised, to), denoised)
    call = Call(sampler, c, view)
    sigmas = [view.level(e.sigma) for e in (*call.past, c)]
    grid = torch.tensor([*sigmas, view.level(to)], dtype=torch.float64)
    first = call.past[0] if call.past else c
    options = keywords(sampler, view)
    if intervals is not None:
        options["s_churn"] /= intervals / (len(grid) - 1)
    if sampler.function.draws:
        options["noise_sampler"] = call.draw
    function = getattr(sampling(sampler.function.file), f"sample_{sampler.function.name}")
    with noise(lambda x: call.draw()):
        x = function(
            call.model, held(view.enter(first.x, first.sigma)), grid, disable=True, **options
        )
    assert call.denoised is not None
    return StepResult(view.leave(x.as_subclass(Tensor), to), call.denoised)


def held(x: Tensor) -> Tensor:
    """A state as the functions get it."""
    return x.as_subclass(Held)


def keywords(sampler: KDiffusion, view: View) -> dict[str, Any]:
    """The function's parameters; bounds on sigma are given on the path and seen in the view."""
    given = {name: getattr(sampler.params, name) for name in sampler.function.options}
    for name in ("s_tmin", "s_tmax"):
        if given.get(name) is not None:
            given[name] = view.level(min(given[name], view.path.sigma_max))
    return {name: value for name, value in given.items() if value is not None}


class Call:
    """One call of a function: answers for its model and its noise."""

    def __init__(self, sampler: KDiffusion, c: StepContext, view: View) -> None:
        self.sampler, self.c, self.view = sampler, c, view
        usable = [p for p in c.past[: sampler.history] if view.regular(p.sigma)]
        self.past = tuple(reversed(usable))
        self.asked = self.drawn = 0
        self.denoised: Tensor | None = None

    def model(self, x: Tensor, level: Tensor, **_: Any) -> Tensor:
        """Past predictions first, then D at the step's start, then what else the step asks."""
        index, self.asked = self.asked, self.asked + 1
        if index < len(self.past):
            past = self.past[index]
            if index > 0:
                x.copy_(self.view.enter(past.x, past.sigma))
            return past.denoised
        sigma = self.view.sigma(float(level[0]))
        if index > len(self.past):
            return self.c.denoise(self.view.leave(x.as_subclass(Tensor), sigma), sigma)
        if self.past:
            x.copy_(self.view.enter(self.c.x, self.c.sigma))
        at_start = sigma == self.c.sigma
        there = self.c.x if at_start else self.view.leave(x.as_subclass(Tensor), sigma)
        self.denoised = self.c.denoise(there, sigma)
        return self.denoised

    def draw(self, start: Any = None, to: Any = None) -> Any:
        """Noise of this step; none for steps that are only replayed or add nothing."""
        if not self.sampler.stochastic or 0 < self.asked <= len(self.past):
            return 0.0
        if self.sampler.function.brownian:
            return self.c.brownian(self.view.sigma(float(start)), self.view.sigma(float(to)))
        self.drawn += 1
        return self.c.noise(f"k_diffusion {self.drawn}")
