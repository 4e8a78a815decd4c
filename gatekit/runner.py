"""The only loop: stages in, trajectory out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gatekit.blame import blaming, blaming_each, check_corrected, check_result
from gatekit.crossing import Crossing
from gatekit.errors import InputError, NumericsError, PluginError
from gatekit.ledger import Checkpoint, Ledger, Observer
from gatekit.phase import Renoise, Step
from gatekit.sampler import StepContext, StepResult, StretchContext
from gatekit.stage import Engine, Stage, extremes, is_finite
from gatekit.state import Evaluation, State, Trajectory

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.noise import NoiseSource
    from gatekit.path import Path

T = TypeVar("T")


def run_stages(
    stages: Sequence[Stage],
    x: Tensor,
    *,
    noise: NoiseSource,
    path: Path,
    run_sigmas: Sequence[float] | None = None,
    resume_from: State | None = None,
    observers: Sequence[Observer] = (),
    checkpoint: Checkpoint | None = None,
    hooks: Any = None,
    plan: Any = None,
) -> Trajectory:
    """Run stages one after another, without gradients.

    Args:
        stages: The phases in order.
        x: State at the first sigma, ``[B, ...]``. float32 and float64 are kept, others become
            float32. Ignored when resuming.
        noise: Source of every random number.
        path: Noise path.
        run_sigmas: The whole run's sigmas; joined from the stages if None.
        resume_from: Continue from here, bit for bit; records cover only what is done now.
        observers: Called after each interval with (state, record, denoised), read-only.
            Raising ``Cancelled`` stops the run.
        checkpoint: Called after each interval, before observers, with (state, record).
        hooks: A pluggy hook relay, for ``gatekit_step_end`` and its siblings.
        plan: Handed to ``gatekit_run_start`` and ``gatekit_run_end``.

    Returns:
        The final state and a record of each interval.

    Raises:
        NumericsError: A prediction is not finite; names phase, step and sigma.
        PluginError: A sampler or strategy broke its contract.
        Cancelled: An observer asked to stop.
    """
    import torch

    if not stages:
        raise InputError("a run needs at least one phase", remedy="give a list of phases")
    if resume_from is None:
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        sigma = stages[0].sigmas[0]
        state = State(x=x.to(dtype), sigma=sigma, visited=(sigma,))
    elif resume_from.phase >= len(stages):
        raise InputError(
            f"the saved state is in phase {resume_from.phase} of another run, of {len(stages)}",
            remedy="resume with the phases that the run was started with",
        )
    else:
        state = resume_from
    joined = [stages[0].sigmas[0], *(s for stage in stages for s in stage.sigmas[1:])]
    sigmas = tuple(joined if run_sigmas is None else run_sigmas)
    stages = [replace(s, strategy=s.strategy.within(sigmas)) for s in stages]
    engine = Engine(path, noise, state)
    ledger = Ledger(engine, tuple(observers), checkpoint, hooks)
    run = _Run(tuple(stages), path, engine, sigmas, ledger)
    with torch.no_grad():
        try:
            return run.go(state, plan)
        finally:
            engine.release()


@dataclass
class _Run:
    stages: tuple[Stage, ...]
    path: Path
    engine: Engine
    run_sigmas: tuple[float, ...]
    ledger: Ledger

    def go(self, state: State, plan: Any) -> Trajectory:
        self.ledger.tell("run_start", plan=plan, state=state)
        self.ledger.tell("phase_start", phase=self.stages[state.phase].name, state=state)
        while True:
            stage = self.stages[state.phase]
            for after in self._intervals(stage, state):
                state = after
            self.ledger.tell("phase_end", phase=stage.name, state=state)
            if state.phase + 1 == len(self.stages):
                break
            crossing = Crossing(stage, self.stages[state.phase + 1], self.engine, self.ledger)
            state = crossing.crossed(state, self._correct)
            self.ledger.tell("phase_start", phase=self.stages[state.phase].name, state=state)
        self.engine.check()
        if not is_finite(extremes(state.x)):
            # Every prediction was finite, so the method is to blame, not the model.
            raise NumericsError(
                f"sampler {stage.sampler.name!r} ended at NaN or infinity",
                where=f"phase {stage.name}",
                remedy="use another sampler or smaller steps there",
            )
        self.engine.release()
        self.ledger.tell("run_end", plan=plan, state=state)
        return Trajectory(state, tuple(self.ledger.records))

    def _intervals(self, stage: Stage, state: State) -> Iterator[State]:
        """Every state the stage passes through after ``state``."""
        self.ledger.entered = state
        if stage.sampler.integrate is not None:
            yield from self._stretch(stage, state)
            return
        while (move := self._strategy(stage, state)) is not None:
            match move:
                case Renoise(to):
                    state = self._rise(stage, state, to)
                case Step(to) if 0.0 <= to < state.sigma:
                    state = self._step(stage, state, to)
                case _:
                    raise PluginError(
                        f"strategy {stage.strategy.name!r} asked for no step down",
                        where=f"phase {stage.name}, sigma {state.sigma:.6g}",
                        value=move,
                        remedy="return Step(to) with 0 <= to < sigma, Renoise(to), or None",
                    )
            yield state

    def _step(self, stage: Stage, state: State, to: float) -> State:
        c, denoised = self._begin(stage, state, to)
        method = stage.sampler
        if to == 0.0:
            x = self._sampler(stage, state, partial(method.finish, c, denoised))
            result = StepResult(x, denoised)
        else:
            result = self._sampler(stage, state, partial(method.step, c))
        return self._end(stage, state, to, result, denoised)

    def _sampler(self, stage: Stage, state: State, call: Callable[[], T]) -> T:
        """What code of the stage's sampler returns; its exceptions are named."""
        where = f"phase {stage.name}, step {state.step}, sigma {state.sigma:.6g}"
        return blaming("sampler", stage.sampler, where, self.engine, call)

    def _strategy(self, stage: Stage, state: State) -> Any:
        where = f"phase {stage.name}, step {state.step}, sigma {state.sigma:.6g}"
        ask = partial(stage.strategy.next, state)
        return blaming("strategy", stage.strategy, where, self.engine, ask)

    def _begin(self, stage: Stage, state: State, to: float) -> tuple[StepContext, Tensor]:
        self._start_clock(stage, state)
        denoised = self.engine.know(state.x, state.sigma, state.ahead)
        return self._context(stage, state, to), denoised

    def _start_clock(self, stage: Stage, state: State) -> None:
        self.engine.ensure(stage)
        self.engine.step, self.engine.visit = state.step, state.visit
        self.engine.drew = False
        self.ledger.start()

    def _context(self, stage: Stage, state: State, to: float) -> StepContext:
        left = len(stage.strategy.ahead(state.sigma)) + sum(
            len(s.sigmas) - 1 for s in self.stages[state.phase + 1 :]
        )
        left += self.stages[-1].sigmas[-1] > 0.0  # the interval to 0 that this run leaves out
        own = state.sampler == stage.sampler.identity
        return StepContext(
            x=state.x,
            sigma=state.sigma,
            sigma_next=to,
            past=state.past[: stage.sampler.history],
            memory=state.memory if own else {},
            path=self.path,
            steps_left=max(left, 1),
            engine=self.engine,
        )

    def _end(
        self, stage: Stage, state: State, to: float, result: StepResult, denoised: Tensor
    ) -> State:
        """The state and record after a step, made known to all."""
        check_result(stage, state, result)
        start = None if self.engine.drew else (state.x if result.start is None else result.start)
        evaluation = Evaluation(state.sigma, state.x, denoised, stage.field, start)
        after = replace(
            state,
            x=result.x,
            sigma=to,
            step=state.step + 1,
            past=(evaluation, *state.past)[: self._keep],
            ahead=result.ahead,
            memory=result.memory,
            guidance_memory=self.engine.memory,
            visited=(*state.visited, to),
            sampler=stage.sampler.identity,
            note="",
        )
        self.ledger.add(stage, state, after, stage.sampler.name, result.denoised)
        return after

    def _rise(self, stage: Stage, state: State, to: float) -> State:
        """Go up with fresh noise, without history: past predictions were of another noise.

        Beside a new one their difference does not shrink with the distance in sigma, and a
        multistep sampler divides it by that distance, which may be a rounding error.
        """
        if not state.sigma < to <= self.path.sigma_max:
            raise PluginError(
                f"strategy {stage.strategy.name!r} must renoise to above the state's sigma",
                where=f"phase {stage.name}, sigma {state.sigma:.6g}",
                value=to,
                remedy=f"at most to {self.path.sigma_max:g}, where this path ends",
            )
        self.ledger.start()
        fresh = self.engine.source.like(state.x, step=state.step, purpose="renoise")
        raised = state.displaced(self.path.renoise(state.x, state.sigma, to, fresh))
        after = replace(
            raised,
            sigma=to,
            step=state.step + 1,
            visit=state.visit + 1,
            past=(),
            memory={},
            visited=(*state.visited, to),
            note="",
        )
        latest = state.past[0].denoised if state.past else state.x
        self.ledger.add(stage, state, after, "renoise", latest)
        return after

    def _stretch(self, stage: Stage, state: State) -> Iterator[State]:
        """A sampler that owns its loop; the interval to 0 stays the runner's."""
        end = stage.sigmas[-1]
        if state.sigma > end:
            c, _ = self._begin(stage, state, end)
            inner = StretchContext(
                **{name: getattr(c, name) for name in StepContext.__dataclass_fields__},
                sigmas=(state.sigma, *stage.strategy.ahead(state.sigma)),
                run_sigmas=self.run_sigmas,
            )
            method, where = stage.sampler, f"phase {stage.name}, from sigma {state.sigma:.6g}"
            begin = partial(method.integrate, inner)
            for to, result in blaming_each("sampler", method, where, self.engine, begin):
                if not end <= to < state.sigma or to == 0.0:
                    raise PluginError(
                        f"sampler {stage.sampler.name!r} left its stretch or passed sigma 0",
                        where=f"phase {stage.name}, sigma {state.sigma:.6g}",
                        value=to,
                        remedy="yield sigmas that descend to c.sigmas[-1], or to above 0",
                    )
                state = self._end(stage, state, to, result, result.denoised)
                yield state
                self._start_clock(stage, state)
            if state.sigma > end > 0.0:
                raise PluginError(
                    f"sampler {stage.sampler.name!r} stopped before the end of its stretch",
                    where=f"phase {stage.name}",
                    value=state.sigma,
                    remedy="yield down to c.sigmas[-1]",
                )
        if state.sigma > end == 0.0:
            yield self._step(stage, state, 0.0)

    def _correct(self, stage: Stage, state: State, denoised: Tensor) -> Tensor:
        c = self._context(stage, state, state.sigma)
        x = self._sampler(stage, state, partial(stage.sampler.correct, c, denoised))
        check_corrected(stage, f"phase {stage.name}, sigma {state.sigma:.6g}", state, x)
        return x

    @property
    def _keep(self) -> int:
        """Past evaluations that anyone in the run may ask for."""
        wants = (max(s.sampler.history, s.strategy.history, s.history.history) for s in self.stages)
        return max(1, *wants)
