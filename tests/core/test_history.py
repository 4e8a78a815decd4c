"""What each policy does to the history, and what it costs."""

from dataclasses import replace

import pytest
import torch

from gatekit import FunctionPhase, Sampler, State, StepResult
from gatekit.functional import trace_phases
from gatekit.testing import Constant, Gaussian, Mixture

GRID = (1.0, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.0)
X = torch.randn(1, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Spy(Sampler):
    """Euler that keeps what it was shown."""

    name, history = "spy", 2

    def __init__(self):
        super().__init__()
        self.seen, self.corrected = {}, 0

    def step(self, c):
        self.seen[c.sigma] = c.past
        denoised = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, denoised, c.sigma_next), denoised)

    def correct(self, c, denoised):
        self.corrected += 1
        return c.x + 1.0


def cross(policy, low=None, cut=4, fields=("high", "low"), sampler=None):
    spy = sampler or Spy()
    low = low or Mixture(means=(-1.0, 0.0, 2.0))
    run = trace_phases(
        [
            FunctionPhase(Mixture(), spy, GRID[: cut + 1], field=fields[0]),
            FunctionPhase(low, spy, GRID[cut:], field=fields[1], history=policy),
        ],
        X,
    )
    return run, spy


def test_carry_keeps_the_old_models_evaluations():
    run, spy = cross("carry")
    assert [(p.sigma, p.field) for p in spy.seen[0.5]] == [(0.65, "high"), (0.8, "high")]
    assert run[4].note == "carry" and run.nfe == len(GRID) - 1
    assert all(p.start is not None for p in spy.seen[0.5])


def test_reset_forgets_even_where_the_field_stays():
    run, spy = cross("reset", fields=("one", "one"))
    assert spy.seen[0.5] == () and run[4].note == "reset"
    assert [p.sigma for p in spy.seen[0.35]] == [0.5]


@pytest.mark.parametrize("policy", ["auto", "close", "carry"])
def test_nothing_happens_where_the_field_stays(policy):
    run, spy = cross(policy, low=Mixture(), fields=("one", "one"))
    assert spy.corrected == 0 and run[4].note == "" and run.nfe == len(GRID) - 1
    assert len(spy.seen[0.5]) == 2


def test_close_corrects_with_the_old_model_and_shifts_by_the_jump():
    low = Mixture(means=(-1.0, 0.0, 2.0))
    run, spy = cross("close", low)
    uncut, other = cross("carry", low)
    assert spy.corrected == 1 and run[4].note == "close"
    assert run.nfe == uncut.nfe + 1 and run[4].nfe == 2
    # The spy's corrector adds 1, so the jump is D_new(x + 1) - D_old(x) at the boundary.
    x = other.seen[0.35][0].x
    jump = low(x + 1.0, 0.5) - Mixture()(x, 0.5)
    for shifted, old in zip(spy.seen[0.5], other.seen[0.5], strict=True):
        assert torch.allclose(shifted.denoised, old.denoised + jump, atol=1e-12)
        assert shifted.start is None


def test_close_does_with_one_evaluation():
    run, _ = cross("close", cut=1)
    assert run[1].note == "close" and run[1].nfe == 2


def test_close_resets_where_a_hook_changed_what_it_closed():
    from types import SimpleNamespace

    spy, silent = Spy(), lambda **_: None
    names = ("run_start", "phase_start", "step_end", "phase_end", "run_end")
    hooks = SimpleNamespace(**{f"gatekit_{name}": silent for name in names})
    hooks.gatekit_cross_boundary = lambda state, **_: replace(state, x=state.x * 1.5)
    phases = [
        FunctionPhase(Mixture(), spy, GRID[:5], field="high"),
        FunctionPhase(Mixture(means=(-1.0, 0.0, 2.0)), spy, GRID[4:], field="low", history="close"),
    ]
    run = trace_phases(phases, X, hooks=hooks)
    assert run[4].note == "close: reset, nothing to close" and spy.seen[0.5] == ()


def test_auto_measures_the_jump_against_the_last_move():
    """rho of the docstring, by hand: D moves by 1 a step and the new model is off by 0.75."""

    def denoise(offset):
        return lambda x, sigma: torch.full_like(x, 10 * (1 - sigma) + offset)

    grid = (0.9, 0.8, 0.7, 0.6, 0.0)
    phases = [
        FunctionPhase(denoise(0.0), "euler", grid[:3], field="a"),
        FunctionPhase(denoise(0.75), "euler", grid[2:], field="b", history="auto"),
    ]
    assert trace_phases(phases, X)[2].note == "auto: carry, rho 0.75"
    phases[1] = replace(phases[1], denoise=denoise(16.5))
    assert trace_phases(phases, X)[2].note == "auto: reset, rho 16.5"


@pytest.mark.parametrize(
    ("low", "note", "kept"),
    [(Mixture(), "auto: carry", 2), (Constant(9.0), "auto: reset", 0)],
)
def test_auto_decides_by_the_size_of_the_jump(low, note, kept):
    run, spy = cross("auto", low)
    assert run[4].note.startswith(note) and len(spy.seen[0.5]) == kept
    assert run.nfe == len(GRID) - 1, "the deciding evaluation is used again"


def test_auto_with_a_short_history_resets():
    run, spy = cross("auto", cut=1)
    assert run[1].note == "auto: reset, short history" and spy.seen[0.9] == ()


def test_auto_threshold():
    from gatekit import Auto

    tolerant = Auto(Auto.Params(threshold=1e6))
    run, _ = cross(tolerant, Constant(9.0))
    assert run[4].note.startswith("auto: carry")


def test_closing_helps_a_multistep_sampler_over_a_jump():
    """On two fields of known flow, close lies nearer to the truth than carry."""
    high, low = Gaussian(1.5, 0.4), Gaussian(1.0, 0.6)
    grid = [0.95 * (1 - i / 30) + 0.05 * i / 30 for i in range(31)]
    cut = 15
    truth = low.flow(high.flow(X, grid[0], grid[cut]), grid[cut], grid[-1])
    errors = {}
    for policy in ("carry", "close"):
        phases = [
            FunctionPhase(high, "unipc", grid[: cut + 1], field="high"),
            FunctionPhase(low, "unipc", grid[cut:], field="low", history=policy),
        ]
        errors[policy] = float((trace_phases(phases, X).x - truth).abs().max())
    assert errors["close"] < errors["carry"] / 2


def test_a_policy_of_ones_own():
    from gatekit import HistoryPolicy

    class KeepOne(HistoryPolicy):
        name = "keep_one"

        def enter(self, state: State, denoise):
            return replace(state, past=state.past[:1], note="one")

    run, spy = cross(KeepOne())
    assert len(spy.seen[0.5]) == 1 and run[4].note == "one"
