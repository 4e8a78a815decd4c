"""Functions that own their loop, held at each step until the runner wants the next.

The function runs in a thread that never runs at the same time as ours: it hands over each
request and waits. Models and noise stay in our thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gatekit import StepResult, StretchContext
from gatekit_kdiffusion.interval import held, keywords
from gatekit_kdiffusion.package import noise, sampling
from gatekit_kdiffusion.view import View

if TYPE_CHECKING:
    from gatekit_kdiffusion.samplers import KDiffusion

Ask = Callable[..., Any]


def steps(sampler: KDiffusion, c: StretchContext) -> Iterator[tuple[float, StepResult]]:
    """(sigma, result) of each step the function accepts.

    It ends at the phase's last sigma; where that is 0, at the last one above 0.
    """
    inner = [sigma for sigma in c.sigmas if sigma > 0.0]
    view = View(c.path, sampler.lifted, *inner)
    x, sigma = c.x, c.sigma
    if not view.regular(sigma) and len(inner) > 1:  # no signal yet: nothing to lift
        denoised, inner = c.denoise(x, sigma), inner[1:]
        x, sigma = c.transfer(x, denoised, inner[0]), inner[0]
        yield sigma, StepResult(x, denoised)
    if len(inner) < 2:
        return
    goal, drawn, accepted = inner[-1], 0, 0
    latest: Any = None
    running = suspended(lambda ask: body(sampler, view, x, inner, len(c.run_sigmas), ask))
    answer: Any = None
    try:
        while True:
            match running.send(answer):
                case "model", asked, level:
                    at = view.sigma(level)
                    start = latest is None and at == sigma
                    answer = c.denoise(x if start else view.leave(asked, at), at)
                case "noise", first, last:
                    drawn += 1
                    answer = (
                        c.noise(f"k_diffusion {drawn}")
                        if first is None or not sampler.function.brownian
                        else c.brownian(view.sigma(float(first)), view.sigma(float(last)))
                    )
                case "step", info:
                    answer = None
                    if "n_accept" not in info:  # told at a step's start
                        if latest is not None:
                            at = view.sigma(float(info["sigma"]))
                            yield at, result(view, info["x"], at, latest)
                    elif info["n_accept"] > accepted:  # told at a step's end
                        accepted = info["n_accept"]
                        at = view.sigma(float(info["sigma"]))
                        at = goal if at <= goal * (1 + 2e-5) else at
                        yield at, result(view, info["x"], at, info["denoised"])
                    latest = info["denoised"]
                case _:
                    raise AssertionError("no such request")
    except StopIteration as end:
        if not accepted:
            yield goal, result(view, end.value, goal, latest)
    finally:
        running.close()


def result(view: View, x: Tensor, sigma: float, denoised: Any) -> StepResult:
    """A step's end, on the path again."""
    return StepResult(view.leave(x.as_subclass(Tensor), sigma), denoised.as_subclass(Tensor))


def body(
    sampler: KDiffusion, view: View, x: Tensor, inner: list[float], run: int, ask: Ask
) -> Tensor:
    """The call of the function, in its thread."""
    wanted: dict[str, Any] = {
        "sigmas": lambda: torch.tensor([view.level(s) for s in inner], dtype=torch.float64),
        "sigma_min": lambda: view.level(inner[-1]),
        "sigma_max": lambda: view.level(inner[0]),
        "n": lambda: len(inner) - 1,
    }
    options = keywords(sampler, view)
    if "s_churn" in options:
        options["s_churn"] /= (run - 1) / (len(inner) - 1)
    draws = sampler.stochastic

    def draw(first: Any = None, last: Any = None) -> Any:
        return ask("noise", first, last) if draws else 0.0

    if sampler.function.draws:
        options["noise_sampler"] = draw
    function = getattr(sampling(sampler.function.file), f"sample_{sampler.function.name}")
    with noise(lambda x: draw()):
        return function(
            lambda x, level, **_: ask("model", x.as_subclass(Tensor), float(level[0])),
            held(view.enter(x, inner[0])),
            *[wanted[name]() for name in sampler.function.grid],
            callback=lambda info: ask("step", info),
            disable=True,
            **options,
        )


class Stop(BaseException):
    """Ends a thread whose run is over; no ``except Exception`` may swallow it."""


def suspended(function: Callable[[Ask], Tensor]) -> Generator[Any, Any, Tensor]:
    """A generator of what ``function(ask)`` asks for; it waits for each answer in a thread."""
    asked: SimpleQueue[Any] = SimpleQueue()
    answers: SimpleQueue[Any] = SimpleQueue()

    def ask(*request: Any) -> Any:
        asked.put(request)
        answer = answers.get()
        if answer is Stop:
            raise Stop
        return answer

    def run() -> None:
        try:
            asked.put((None, function(ask)))
        except Stop:
            pass
        except BaseException as error:
            asked.put((error, None))

    thread = threading.Thread(target=run, name="k_diffusion", daemon=True)
    thread.start()
    try:
        while True:
            request = asked.get()
            if request[0] is None:
                return request[1]
            if isinstance(request[0], BaseException):
                raise request[0]
            answers.put((yield request))
    finally:
        answers.put(Stop)
        thread.join()
