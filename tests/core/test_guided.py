"""Guided: a memory for each conditioning, beside the guidance's own; nothing kept in objects."""

import torch

import gatekit
from gatekit import Cached, Guidance, Guided, ModelVariant, StepCache

X = torch.ones(1, 4)


class Two(ModelVariant):
    """Two blocks: plus the conditioning, times two."""

    name, family, in_blocks = "two", "none", True

    def facts(self):
        raise NotImplementedError

    def files(self):
        return ()

    def load(self, device, compute):
        raise NotImplementedError

    unload = loaded = None

    def through(self, x, sigma, conditioning, body):
        return body((lambda h: h + conditioning, lambda h: h * 2), x)

    def velocity(self, x, sigma, conditioning):
        return (x + conditioning) * 2


class Both(Guidance):
    """Positive less negative; counts its calls."""

    name = "both"

    def velocity(self, predict, x, sigma, memory):
        assert set(memory) <= {"calls"}
        positive, negative = predict(x, sigma, ("positive", "negative"))
        return positive - negative, {"calls": memory.get("calls", 0) + 1}


class Second(StepCache):
    """Skips every pass but the first of each conditioning."""

    name = "second"

    def through(self, blocks, hidden, sigma, memory):
        if memory:
            return Cached(memory["out"], {**memory, "n": memory["n"] + 1}, skipped=True)
        out = blocks[1](blocks[0](hidden))
        return Cached(out, {"out": out, "n": 0})


class Off(Second):
    """Never asked."""

    off = True


def guided(cache=None):
    conditionings = {"positive": 1.0, "negative": 5.0}
    return Guided(Two(gatekit.VariantParams()), Both(), conditionings, cache)


def test_each_conditioning_has_a_memory_of_its_own():
    made = guided(Second())
    first, memory = made.velocity(X, 0.9, {})
    again, after = made.velocity(X * 9, 0.8, memory)
    assert torch.equal(first, X * 4 - X * 12)
    assert torch.equal(again, first)  # each its own, or they would cancel
    assert {name: kept["n"] for name, kept in after["step cache"].items()} == {
        "positive": 1,
        "negative": 1,
    }
    assert after["calls"] == 2
    assert (made.passes, made.skipped) == (4, 2)


def test_memory_is_given_not_kept():
    made = guided(Second())
    made.velocity(X, 0.9, {})
    fresh, _ = made.velocity(X * 9, 0.8, {})
    assert torch.equal(fresh, X * 20 - X * 28)
    assert made.skipped == 0


def test_without_a_cache_memory_is_the_guidances_alone():
    for cache in (None, Off()):
        made = guided(cache)
        velocity, memory = made.velocity(X, 0.9, {})
        assert memory == {"calls": 1}
        assert torch.equal(velocity, X * 4 - X * 12)
        assert (made.passes, made.skipped) == (2, 0)
