"""The loop: what is called when, with what, and what happens when somebody misbehaves."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from gatekit import (
    Cancelled,
    InputError,
    NoiseSource,
    NumericsError,
    Phase,
    PluginError,
    RectifiedFlow,
    Renoise,
    Sampler,
    State,
    Step,
    StepResult,
    lazy,
)
from gatekit.functional import FunctionPhase, make_stage, trace_phases
from gatekit.runner import run_stages
from gatekit.stage import Stage, extremes, is_finite
from gatekit.testing import Constant, Mixture

GRID = (1.0, 0.8, 0.5, 0.2, 0.0)
X = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))


def trace(*phases, **options):
    return trace_phases(phases, X, **options)


def stage(name, sigmas, events, field="one", history="carry", sampler="euler"):
    base = make_stage(
        FunctionPhase(Mixture(), sampler, sigmas, field=field, history=history), 0, RectifiedFlow()
    )

    def opened():
        events.append(f"open {name}")

        def evaluate(x, sigma, memory):
            return Mixture()(x, sigma), {**memory, name: memory.get(name, 0) + 1}

        return evaluate

    return Stage(
        name=name,
        field=field,
        sampler=base.sampler,
        strategy=base.strategy,
        history=base.history,
        open=opened,
        close=lambda: events.append(f"close {name}"),
    )


def run(stages, **options):
    return run_stages(stages, X, noise=NoiseSource(0), path=RectifiedFlow(), **options)


def test_models_come_and_go_in_order():
    events = []
    hooks = SimpleNamespace(
        gatekit_run_start=lambda plan, state: events.append(f"run {plan}"),
        gatekit_phase_start=lambda phase, state: events.append(f"start {phase}"),
        gatekit_step_end=lambda state, record, denoised: events.append(f"step {record.step}"),
        gatekit_phase_end=lambda phase, state: events.append(f"end {phase}"),
        gatekit_run_end=lambda plan, state: events.append(f"done {state.sigma}"),
        gatekit_cross_boundary=lambda state, leaving, entering: events.append(
            f"{leaving} to {entering}"
        ),
    )
    stages = [
        stage("a", GRID[:3], events, "high"),
        stage("b", GRID[2:], events, "low", "close"),
    ]
    run(stages, hooks=hooks, plan="P")
    assert events == [
        *("run P", "start a", "open a", "step 0", "step 1", "end a"),
        *("close a", "a to b", "open b", "start b", "step 2", "step 3", "end b"),
        *("close b", "done 0.0"),
    ]


def test_resuming_after_a_phase_does_not_load_its_model():
    events, kept = [], []
    stages = [stage("a", GRID[:3], events, "high"), stage("b", GRID[2:], events, "low")]
    run(stages, checkpoint=lambda state, record: kept.append(state))
    events.clear()
    run(stages, resume_from=kept[1])
    assert events == ["open b", "close b"]
    events.clear()
    finished = run(stages, resume_from=kept[3])
    assert events == [] and len(finished) == 0 and finished.state.sigma == 0.0
    with pytest.raises(InputError, match="another run"):
        run(stages[:1], resume_from=kept[3])


def test_guidance_memory_is_threaded_and_dropped_with_the_field():
    kept = []
    stages = [
        stage("a", GRID[:2], [], "one"),
        stage("b", GRID[1:3], [], "one"),
        stage("c", GRID[2:], [], "two", "close"),
    ]
    run(stages, checkpoint=lambda state, record: kept.append(dict(state.guidance_memory)))
    assert kept == [{"a": 1}, {"a": 1, "b": 1}, {"c": 1}, {"c": 2}]


def test_the_model_is_let_go_when_something_fails():
    events = []

    def stop(state, record, denoised):
        raise Cancelled()

    with pytest.raises(Cancelled):
        run([stage("a", GRID, events)], observers=[stop])
    assert events == ["open a", "close a"]


def test_cancelling_keeps_the_checkpoint_of_the_step():
    kept = []

    def stop(state, record, denoised):
        if record.step == 1:
            raise Cancelled()

    phase = FunctionPhase(Mixture(), "unipc", GRID)
    with pytest.raises(Cancelled):
        trace(phase, checkpoint=lambda state, _: kept.append(state), observers=[stop])
    assert [s.step for s in kept] == [1, 2]
    assert trace(phase, resume_from=kept[-1]).x.equal(trace(phase).x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numerics_are_watched(bad):
    def denoise(x, sigma):
        return x * (bad if sigma < 0.6 else 1.0)

    with pytest.raises(NumericsError, match=r"phase low, step 2, sigma 0\.5"):
        trace(FunctionPhase(denoise, "euler", GRID, name="low"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_element_is_found_and_huge_ones_are_no_alarm(bad):
    most = torch.finfo(torch.float32).max
    huge = torch.full((3, 1000), most)
    huge[1] = -most
    assert is_finite(extremes(huge)) and is_finite(extremes(huge[:0]))
    huge[2, 777] = bad
    assert not is_finite(extremes(huge))


def test_a_denoiser_must_keep_the_shape():
    with pytest.raises(InputError, match="shape it is given"):
        trace(FunctionPhase(lambda x, s: x[:, :2], "euler", GRID))


def test_records_and_observers():
    seen = []
    phase = FunctionPhase(Mixture(), "heun", GRID, field="f", name="only")
    result = trace(phase, observers=[lambda *event: seen.append(event)])
    assert [(r.sigma, r.sigma_next) for r in result] == list(pairwise(GRID))
    assert [r.nfe for r in result] == [2, 2, 2, 1] and result.nfe == 7
    first = result[0]
    assert (first.passes, first.phase, first.field, first.sampler) == (2, "only", "f", "heun")
    for (state, record, denoised), mine in zip(seen, result, strict=True):
        assert record is mine and state.sigma == record.sigma_next
        assert state.step == record.step + 1 and denoised.shape == X.shape
    assert seen[-1][2].equal(result.x), "the interval to 0 ends at the prediction"


def test_the_time_of_a_step_has_the_wait_for_its_prediction(monkeypatch):
    """On a GPU the prediction is there only once ``check`` has waited for it."""
    from gatekit.stage import Engine

    clock = {"now": 0.0}
    monkeypatch.setattr("time.perf_counter", lambda: clock["now"])

    def wait(self):
        clock["now"] += self.nfe - clock.get("seen", 0)
        clock["seen"] = self.nfe

    monkeypatch.setattr(Engine, "check", wait)
    monkeypatch.setattr(Engine, "_watch", lambda *_: None)
    phases = [
        FunctionPhase(Mixture(), "heun", GRID[:3], field="a"),
        FunctionPhase(Constant(1.0), "heun", GRID[2:], field="b", history="close"),
    ]
    result = trace(*phases, observers=[lambda *_: None])
    assert [r.seconds for r in result] == [r.nfe for r in result] == [2, 2, 3, 1]


def test_passes_are_counted_apart():
    count = {"n": 0}

    def opened():
        def evaluate(x, sigma, memory):
            count["n"] += 2
            return Mixture()(x, sigma), memory

        return evaluate

    from dataclasses import replace

    counted = replace(stage("a", GRID, []), open=opened, close=None, passes=lambda: count["n"])
    result = run([counted])
    assert [r.passes for r in result] == [2] * 4 and result.nfe == 4


def test_no_gradients_and_no_tensors_written():
    weight = torch.ones(1, requires_grad=True)
    result = trace(FunctionPhase(lambda x, s: weight * x * 0.5, "unipc", GRID))
    assert not result.x.requires_grad


class Restart(Phase):
    """Down the grid, up to ``to`` once, and down again."""

    name, to = "restart", 0.6

    def next(self, state: State):
        ups = sum(b > a for a, b in pairwise(state.visited))
        below = [s for s in self.sigmas if s < state.sigma]
        if below in ([], [0.0]) and ups == 0:
            return Renoise(self.to)
        return Step(below[0]) if below else None


class Nosy(Sampler):
    name, history, stochastic = "nosy", 9, True

    def __init__(self):
        super().__init__()
        self.log = []

    def step(self, c):
        self.log.append((c.sigma, [p.sigma for p in c.past], dict(c.memory), c.past[:1]))
        denoised = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, denoised, c.sigma_next), denoised, memory={"n": c.sigma})


def test_going_up_drops_what_is_void():
    nosy = Nosy()
    result = trace(FunctionPhase(Mixture(), nosy, (1.0, 0.8, 0.5, 0.2), strategy=Restart))
    assert result.sigmas == (1.0, 0.8, 0.5, 0.2, 0.6, 0.5, 0.2)
    up = result[3]
    assert (up.sampler, up.nfe, result.state.visit, result.state.step) == ("renoise", 0, 1, 6)
    sigma, past, memory, _ = nosy.log[3]
    assert (sigma, past, memory) == (0.6, [], {})
    assert [entry[1] for entry in nosy.log[4:]] == [[0.6]]


@pytest.mark.parametrize("name", ["unipc", "dpmpp_2m", "ab2"])
def test_going_up_to_just_below_a_sigma_stood_at_divides_by_no_rounding_error(name):
    ends = [
        trace(FunctionPhase(Mixture(), name, (1.0, 0.8, near, 0.2, 0.0), strategy=Restart)).x
        for near in (0.6 + 1e-12, 0.6 + 1e-3)
    ]
    assert (ends[0] - ends[1]).abs().max() < 0.05


def test_going_up_adds_the_noise_of_its_step():
    result = trace(FunctionPhase(Constant(2.0), "euler", (1.0, 0.5, 0.2), strategy=Restart), seed=3)
    noise = NoiseSource(3).like(X, step=2, purpose="renoise")
    down = RectifiedFlow().transfer(X, torch.full_like(X, 2.0), 1.0, 0.2)
    up = RectifiedFlow().renoise(down, 0.2, 0.6, noise)
    expected = RectifiedFlow().transfer(up, torch.full_like(X, 2.0), 0.6, 0.2)
    assert torch.allclose(result.x, expected, atol=1e-6)


def test_a_stochastic_step_leaves_no_start():
    kept = []

    class Drawing(Nosy):
        name = "drawing"

        def step(self, c):
            result = super().step(c)
            return (
                result if c.sigma > 0.9 else StepResult(result.x + 0 * c.noise(), result.denoised)
            )

    trace(FunctionPhase(Mixture(), Drawing(), GRID), checkpoint=lambda s, _: kept.append(s))
    assert [s.past[0].start is None for s in kept] == [False, True, True, False]


class Stretchy(Sampler):
    """Owns its loop: halves sigma until below the target."""

    name, adaptive = "stretchy", True

    def step(self, c):
        raise AssertionError("the runner must call integrate")

    def integrate(self, c):
        assert c.sigmas[0] == c.sigma and c.run_sigmas == GRID
        x, sigma, end = c.x, c.sigma, max(c.sigmas[-1], 0.05)
        while sigma > end:
            to = max(sigma / 2, end)
            denoised = c.denoise(x, sigma)
            x = c.transfer(x, denoised, to, start=sigma)
            yield to, StepResult(x, denoised)
            sigma = to


def test_a_sampler_that_owns_its_loop():
    kept = []
    phases = [
        FunctionPhase(Mixture(), Stretchy(), GRID[:3], field="a"),
        FunctionPhase(Mixture(), Stretchy(), GRID[2:], field="a"),
    ]
    result = trace(*phases, checkpoint=lambda s, _: kept.append(s))
    assert result.sigmas == (1.0, 0.5, 0.25, 0.125, 0.0625, 0.05, 0.0)
    assert [r.nfe for r in result] == [1] * 6
    for state in kept:
        assert trace(*phases, resume_from=state).x.equal(result.x)


@pytest.mark.parametrize(
    ("yielded", "text"),
    [(0.0, "passed sigma 0"), (1.0, "left its stretch"), (None, "stopped before the end")],
)
def test_a_loop_that_leaves_its_stretch(yielded, text):
    class Lost(Stretchy):
        name = "lost"

        def integrate(self, c):
            if yielded is not None:
                yield yielded, StepResult(c.x, c.x)

    grid = (1.0, 0.5) if yielded is None else (1.0, 0.5, 0.0)
    with pytest.raises(PluginError, match=text):
        trace(FunctionPhase(Mixture(), Lost(), grid))


@pytest.mark.parametrize(
    "result",
    [
        None,
        torch.ones(1),
        StepResult(torch.ones(2), torch.ones(1)),
        StepResult(lazy(torch.ones(1)), torch.ones(1)),
    ],
)
def test_a_sampler_that_returns_something_else(result):
    class Wrong(Sampler):
        name = "wrong"

        def step(self, c):
            return result

    with pytest.raises(PluginError, match="'wrong' must return a StepResult"):
        trace(FunctionPhase(Mixture(), Wrong(), GRID))


@pytest.mark.parametrize("move", [Step(1.0), Step(-0.1), Renoise(0.5), Renoise(1.5), "down"])
def test_a_strategy_that_goes_nowhere(move):
    class Stuck(Phase):
        name = "stuck"

        def next(self, state):
            return move

    with pytest.raises(PluginError, match="'stuck'"):
        trace(FunctionPhase(Mixture(), "euler", GRID, strategy=Stuck))


def test_a_boundary_hook_that_changes_x():
    from dataclasses import replace

    spy = Nosy()
    silent = lambda **_: None  # noqa: E731
    hooks = SimpleNamespace(
        gatekit_run_start=silent,
        gatekit_phase_start=silent,
        gatekit_step_end=silent,
        gatekit_phase_end=silent,
        gatekit_run_end=silent,
        gatekit_cross_boundary=lambda state, leaving, entering: replace(state, x=state.x * 1.5),
    )
    phases = [
        FunctionPhase(Mixture(), spy, GRID[:3], field="a"),
        FunctionPhase(Mixture(), spy, GRID[2:], field="b"),
    ]
    hooked, without = trace(*phases, hooks=hooks), trace(*phases)
    assert not hooked.x.equal(without.x)
    assert spy.log[2][3][0].start is None and spy.log[5][3][0].start is not None


def test_steps_left_counts_the_run_not_the_phase():
    left = []

    class Count(Nosy):
        name = "count"

        def step(self, c):
            left.append(c.steps_left)
            return super().step(c)

    one = Count()
    trace(FunctionPhase(Mixture(), one, GRID[:3]), FunctionPhase(Mixture(), one, GRID[2:]))
    assert left == [4, 3, 2]
    left.clear()
    trace(FunctionPhase(Mixture(), one, GRID[:3]))
    assert left == [3, 2]


def test_a_run_needs_a_phase():
    with pytest.raises(InputError, match="at least one phase"):
        run([])
