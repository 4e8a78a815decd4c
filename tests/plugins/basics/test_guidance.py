"""Guidance by its algebra: what it equals, what it leaves alone, how many passes it takes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gatekit import InputError, State
from gatekit.functional import make_params
from gatekit.registry import registry

GENERATOR = torch.Generator().manual_seed(0)
X, POSITIVE, NEGATIVE = (
    torch.randn(2, 3, 2, 4, 4, generator=GENERATOR, dtype=torch.float64) for _ in range(3)
)
CLASSIFIER_FREE = ("cfg", "cfg_zero_star", "apg")
SIGMA = 0.7


def guidance(name, **params):
    cls = registry().get("guidance", name)
    return cls(make_params(cls, params, name))


class Predict:
    """Two fixed velocities; remembers what it was asked."""

    def __init__(self, positive=POSITIVE, negative=NEGATIVE):
        self.values = {"positive": positive, "negative": negative}
        self.asked = []

    def __call__(self, x, sigma, names):
        self.asked.append(tuple(names))
        return [self.values[name] for name in names]


def velocity(method, predict=None, sigma=SIGMA, memory=None, x=X):
    return method.velocity(predict or Predict(), x, sigma, memory or {})


def inner(a, b):
    return (a * b).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("name", "params", "value", "names"),
    [
        ("none", {}, 3.0, ("positive",)),
        ("cfg", {"scale": 3.5}, 1.0 + 3.5 * 2.0, ("positive", "negative")),
        ("cfg", {"scale": 1.0}, 3.0, ("positive",)),
        ("cfg", {"scale": 0.0}, 1.0, ("positive", "negative")),
    ],
)
def test_velocity_and_passes(name, params, value, names):
    one = torch.ones(1, 1)
    predict, method = Predict(3 * one, one), guidance(name, **params)
    found, memory = method.velocity(predict, one, 0.5, {"kept": 1})
    assert float(found) == value and memory == {"kept": 1}
    assert predict.asked == [names] and method.passes == len(names) and method.needs == names


@pytest.mark.parametrize("name", CLASSIFIER_FREE)
def test_scale_one_is_the_conditional_prediction_in_one_pass(name):
    predict, method = Predict(), guidance(name, scale=1.0)
    assert velocity(method, predict)[0] is POSITIVE
    assert predict.asked == [("positive",)] and method.passes == 1
    assert guidance(name, scale=2.0).needs == ("positive", "negative")


@pytest.mark.parametrize("name", CLASSIFIER_FREE)
def test_outside_its_range_it_is_the_conditional_prediction_in_one_pass(name):
    method = guidance(name, scale=3.0, start=0.9, end=0.4)
    for sigma, passes in ((1.0, 1), (0.95, 1), (0.9, 2), (0.7, 2), (0.4, 2), (0.3, 1)):
        predict = Predict()
        found = velocity(method, predict, sigma)[0]
        assert len(predict.asked[0]) == passes == method.passes_at(sigma)
        assert (found is POSITIVE) == (passes == 1)
        if passes == 2:
            assert found.equal(velocity(guidance(name, scale=3.0), sigma=sigma)[0])
    assert method.passes == 2  # the most that one evaluation costs


def test_a_plan_counts_the_passes_of_the_range(project):
    import gatekit

    schedule = gatekit.load_schedule(
        project / "fake.yaml", overrides={"phases.high.guidance.end": 0.95}
    )
    rows = [r for r in gatekit.resolve(schedule).table() if r.phase == "high"]
    assert {r.passes for r in rows if r.sigma >= 0.95} == {2}
    assert {r.passes for r in rows if r.sigma < 0.95} == {1}


def test_a_range_upside_down_is_refused():
    with pytest.raises(InputError, match="start must not lie below end"):
        guidance("cfg", start=0.3, end=0.5)


@pytest.mark.parametrize("name", CLASSIFIER_FREE)
@given(scale=st.floats(0, 10))
def test_equal_predictions_stay_what_they_are(name, scale):
    found, _ = velocity(guidance(name, scale=scale), Predict(POSITIVE, POSITIVE.clone()))
    assert torch.allclose(found, POSITIVE, atol=1e-12)


@pytest.mark.parametrize("name", CLASSIFIER_FREE)
def test_samples_of_a_batch_do_not_mix(name):
    method = guidance(name, scale=4.0)
    together, memory = velocity(method)
    for i in range(2):
        alone, own = velocity(
            method, Predict(POSITIVE[i : i + 1], NEGATIVE[i : i + 1]), x=X[i : i + 1]
        )
        assert torch.allclose(alone[0], together[i], atol=1e-12)
        assert all(torch.equal(own[k][0], memory[k][i]) for k in memory)


@given(scale=st.floats(0, 10), gain=st.floats(0.05, 20))
def test_zero_star_does_not_depend_on_the_size_of_the_negative(scale, gain):
    """k makes up for it: what plain guidance does not."""
    method = guidance("cfg_zero_star", scale=scale)
    a, b = (velocity(method, Predict(POSITIVE, g * NEGATIVE))[0] for g in (1.0, gain))
    assert torch.allclose(a, b, atol=1e-8)


def test_zero_star_amplifies_what_is_orthogonal_to_the_negative():
    a, b = (velocity(guidance("cfg_zero_star", scale=s))[0] for s in (2.0, 5.0))
    assert torch.allclose(inner(a - b, NEGATIVE), torch.zeros(2, dtype=X.dtype), atol=1e-9)
    assert torch.allclose(inner(a, NEGATIVE), inner(POSITIVE, NEGATIVE), atol=1e-9)
    parallel = velocity(guidance("cfg_zero_star", scale=7.0), Predict(3 * NEGATIVE, NEGATIVE))[0]
    assert torch.allclose(parallel, 3 * NEGATIVE, atol=1e-9)


def test_zero_star_of_a_zero_negative_is_finite():
    found, _ = velocity(guidance("cfg_zero_star", scale=2.0), Predict(POSITIVE, 0 * NEGATIVE))
    assert torch.allclose(found, 2 * POSITIVE)


def test_zero_init_asks_nothing_above_its_sigma():
    method, predict = guidance("cfg_zero_star", zero_above=0.97), Predict()
    assert float(velocity(method, predict, 0.98)[0].abs().max()) == 0.0 and not predict.asked
    assert (method.passes_at(0.98), method.passes_at(0.97)) == (0, 2)
    assert float(velocity(method, predict, 0.97)[0].abs().max()) > 0.0


@given(scale=st.floats(0, 10), sigma=st.floats(0.05, 1))
def test_apg_without_its_three_ideas_is_cfg(scale, sigma):
    plain = guidance("apg", scale=scale, parallel=1.0, momentum=0.0)
    found, memory = velocity(plain, sigma=sigma)
    assert torch.allclose(found, velocity(guidance("cfg", scale=scale))[0], atol=1e-9)
    assert memory == {}


def test_apg_leaves_the_prediction_along_itself_alone():
    """In predictions D of x0 the update is orthogonal to D(positive)."""
    denoised = X - SIGMA * POSITIVE
    found, _ = velocity(guidance("apg", scale=6.0))
    update = (X - SIGMA * found) - denoised
    assert torch.allclose(inner(update, denoised), torch.zeros(2, dtype=X.dtype), atol=1e-9)
    half, _ = velocity(guidance("apg", scale=6.0, parallel=0.5))
    whole, _ = velocity(guidance("apg", scale=6.0, parallel=1.0))
    assert torch.allclose(half, (found + whole) / 2, atol=1e-12)


def test_apg_bounds_its_update():
    free = guidance("apg", scale=3.0, parallel=1.0, momentum=0.0)
    tight = guidance("apg", scale=3.0, parallel=1.0, momentum=0.0, threshold=0.01)
    loose = guidance("apg", scale=3.0, parallel=1.0, momentum=0.0, threshold=100.0)
    update = SIGMA * (POSITIVE - velocity(tight)[0])
    rms = update.flatten(1).square().mean(1).sqrt()
    assert torch.allclose(rms, torch.full((2,), 2.0 * 0.01, dtype=X.dtype))
    assert torch.allclose(velocity(loose)[0], velocity(free)[0], atol=1e-12)


def test_apg_guides_each_evaluation_alike_unless_told_otherwise():
    """With momentum the guidance alternates before it settles, which multistep samplers amplify."""
    plain = guidance("apg", scale=3.0)
    first, memory = velocity(plain)
    assert memory == {} and velocity(plain, memory=memory)[0].equal(first)
    weights, memory = [], {}
    for _ in range(5):
        found, memory = velocity(guidance("apg", scale=3.0, momentum=-0.5), memory=memory)
        weights.append(float(((found - POSITIVE) / (first - POSITIVE)).mean()))
    assert weights == pytest.approx([1.0, 0.5, 0.75, 0.625, 0.6875])


def test_apg_remembers_through_memory_alone():
    """The second call adds momentum times the first difference; instances hold nothing."""
    method = guidance("apg", scale=3.0, parallel=1.0, momentum=-0.5)
    first, memory = velocity(method, memory={"other": 1})
    again, _ = velocity(method)
    second, later = velocity(method, memory=memory)
    assert first.equal(again) and memory["other"] == 1 == later["other"]
    assert torch.allclose(memory["apg"], SIGMA * (NEGATIVE - POSITIVE))
    assert torch.allclose(later["apg"], 0.5 * memory["apg"])
    assert torch.allclose(second - POSITIVE, (first - POSITIVE) / 2, atol=1e-12)


def test_instances_do_not_share_their_needs():
    assert guidance("cfg", scale=1.0).needs != guidance("cfg", scale=2.0).needs


def test_grid_strategy_follows_its_sigmas_wherever_it_is_entered():
    strategy = registry().get("strategy", "grid")((0.8, 0.5, 0.2))
    steps = {s: strategy.next(State(torch.zeros(1), s)) for s in (0.9, 0.8, 0.6, 0.5, 0.2, 0.1)}
    assert [step and step.to for step in steps.values()] == [0.8, 0.5, 0.5, 0.2, None, None]
    assert strategy.intervals() == ((0.8, 0.5), (0.5, 0.2))
