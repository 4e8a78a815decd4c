import pytest
import torch

from gatekit import State
from gatekit.functional import make_params
from gatekit.registry import registry


def guidance(name, **params):
    cls = registry().get("guidance", name)
    return cls(make_params(cls, params, name))


class Predict:
    def __init__(self):
        self.asked = []

    def __call__(self, x, sigma, names):
        self.asked.append(tuple(names))
        return [x * {"positive": 3.0, "negative": 1.0}[n] for n in names]


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
    predict, method = Predict(), guidance(name, **params)
    velocity, memory = method.velocity(predict, torch.ones(1), 0.5, {"kept": 1})
    assert float(velocity) == value and memory == {"kept": 1}
    assert predict.asked == [names] and method.passes == len(names) and method.needs == names


def test_instances_do_not_share_their_needs():
    assert guidance("cfg", scale=1.0).needs != guidance("cfg", scale=2.0).needs


def test_grid_strategy_follows_its_sigmas_wherever_it_is_entered():
    strategy = registry().get("strategy", "grid")((0.8, 0.5, 0.2))
    steps = {s: strategy.next(State(torch.zeros(1), s)) for s in (0.9, 0.8, 0.6, 0.5, 0.2, 0.1)}
    assert [step and step.to for step in steps.values()] == [0.8, 0.5, 0.5, 0.2, None, None]
    assert strategy.intervals() == ((0.8, 0.5), (0.5, 0.2))
