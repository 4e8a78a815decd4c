"""Sampler classes made from k-diffusion's functions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model

from gatekit import PluginError, Sampler, SamplerParams, StepContext, StepResult, StretchContext
from gatekit_kdiffusion.known import CHOICES, STEPWISE
from gatekit_kdiffusion.source import Function, Option

if TYPE_CHECKING:
    from torch import Tensor


class KDiffusion(Sampler):
    """A function of k-diffusion.

    Class attributes:
        function: Which.
    """

    function: ClassVar[Function]

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        self.stochastic = draws(self.params.model_dump(), self.function)
        self.churns = getattr(self.params, "s_churn", 0.0) > 0.0

    @property
    def lifted(self) -> bool:
        """Whether it runs in the variance-exploding lift: if it draws noise, or is made to."""
        return self.stochastic or type(self).stochastic


class Stepwise(KDiffusion):
    """A function run over one interval at a time, told of the evaluations before it."""

    def __init__(self, params: SamplerParams | None = None) -> None:
        super().__init__(params)
        facts = STEPWISE[self.function.name]
        terms = getattr(self.params, "order", facts.history + 1)  # lms: one evaluation each
        self.history = terms - 1
        self.order = 1 if self.stochastic else min(facts.order, max(terms, facts.nfe))
        if self.churns:
            self.integrate = self.churned

    def step(self, c: StepContext) -> StepResult:
        """One interval of the function."""
        from gatekit_kdiffusion.interval import advance

        return advance(self, c, c.sigma_next)

    def finish(self, c: StepContext, denoised: Tensor) -> Tensor:
        """The function's own last interval, which asks for nothing new; without churn."""
        from gatekit_kdiffusion.interval import advance

        return denoised if self.churns else advance(self, c, 0.0).x

    def churned(self, c: StretchContext) -> Iterator[tuple[float, StepResult]]:
        """Interval by interval; churn is shared among the intervals of the whole run."""
        from gatekit_kdiffusion.interval import advance

        x, sigma = c.x, c.sigma
        for to in c.sigmas[1:]:
            if to > 0.0:
                here = replace(c, x=x, sigma=sigma, sigma_next=to, past=())
                result = advance(self, here, to, intervals=len(c.run_sigmas) - 1)
                yield to, result
                x, sigma = result.x, to


class Looping(KDiffusion):
    """A function that chooses its own sigmas, or that is not known well enough to cut."""

    adaptive = True
    resumable = False

    def step(self, c: StepContext) -> StepResult:
        """Never called: ``integrate`` owns the loop."""
        raise PluginError(f"sampler {self.name!r} takes no single steps", remedy="use integrate")

    def integrate(self, c: StretchContext) -> Iterator[tuple[float, StepResult]]:
        """Each step the function accepts, while it waits in a thread of its own."""
        from gatekit_kdiffusion.loop import steps

        return steps(self, c)


def draws(options: dict[str, Any], function: Function) -> bool:
    """Whether a function adds noise with these parameters."""
    by_eta = function.draws and options.get("eta", 1.0) > 0.0
    return by_eta or options.get("s_churn", 0.0) > 0.0


def make(function: Function) -> type[Sampler]:
    """The Sampler class of one function."""
    defaults = {name: option.default for name, option in function.options.items()}
    facts = STEPWISE.get(function.name) if function.grid == ("sigmas",) else None
    stochastic = draws(defaults, function)
    how = "Lifted to variance exploding" if stochastic else "Run directly, lifted with noise"
    title = "".join(word.capitalize() for word in function.name.split("_"))
    content: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"""{function.summary or title}, k-diffusion's own function. {how}.

        Source: github.com/crowsonkb/k-diffusion, sampling.py, sample_{function.name}.
        """,
        "name": f"k_diffusion/{function.name}",
        "function": function,
        "stochastic": stochastic,
        "Params": params(function, title),
    }
    if facts is not None:
        content |= {"order": 1 if stochastic else facts.order, "history": facts.history}
        content["nfe_per_step"] = facts.nfe
    base: type[Sampler] = Looping if facts is None else Stepwise
    made: Any = type(title, (base,), content)
    return made


def params(function: Function, title: str) -> type[SamplerParams]:
    """The function's parameters, typed by their defaults."""
    fields: dict[str, Any] = {
        name: field(option, CHOICES.get((function.name, name), option.choices))
        for name, option in function.options.items()
    }
    return create_model(f"{title}Params", __base__=SamplerParams, __module__=__name__, **fields)


def field(option: Option, choices: tuple[Any, ...]) -> tuple[Any, Any]:
    """(type, field) for pydantic."""
    if choices:
        return Literal[choices], option.default
    match option.default:
        case None:
            return float | None, Field(None, ge=0, description="None: without limit.")
        case bool() | str():
            return type(option.default), option.default
        case int():
            return int, Field(option.default, ge=1)
        case _:
            return float, Field(option.default, ge=0)
