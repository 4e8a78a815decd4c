"""The benchmark of a step's time takes the model, the search for NaN and the noise off."""

from types import SimpleNamespace

import overhead
import pytest
import torch
from stopwatch import HostWatch, Stopwatch, StreamWatch, stopwatch

X = torch.zeros(1, 4, 8)


class Told(Stopwatch):
    """Time passes only where something says so."""

    name, now = "told", 0.0

    def mark(self):
        return self.now

    def seconds(self, began, ended):
        return ended - began

    def typical(self, seconds):
        return max(seconds)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(overhead, "BUFFER", 1000)


@pytest.mark.parametrize(("name", "calls"), [("euler_ancestral", 1), ("dpmpp_sde", 2), ("rk4", 4)])
def test_only_what_is_neither_model_nor_nan_nor_noise_counts(monkeypatch, name, calls):
    watch = Told()

    def passing(method, seconds):
        def call(*args):
            watch.now += seconds
            return method(*args)

        return call

    monkeypatch.setattr(overhead.Engine, "_watch", passing(overhead.Engine._watch, 10.0))
    monkeypatch.setattr(overhead.Engine, "noise", passing(overhead.Engine.noise, 100.0))
    begin = overhead.Sweeping.__init__

    class Sweep:
        def add_(self, _):
            watch.now += 1000.0

    def slowly(self, *args):
        begin(self, *args)
        self.buffer = Sweep()

    monkeypatch.setattr(overhead.Sweeping, "__init__", slowly)
    cost = overhead.measure(name, X, watch)
    draws = {"euler_ancestral": 1, "dpmpp_sde": 2, "rk4": 0}[name]
    assert cost == overhead.Cost(0.0, 10.0 * calls, 100.0 * draws)


def test_time_of_a_sampler_is_its_own(monkeypatch):
    watch = Told()
    step = overhead.gatekit.list_samplers()["euler"].step

    def slow(self, c):
        watch.now += 7.0
        return step(self, c)

    monkeypatch.setattr(overhead.gatekit.list_samplers()["euler"], "step", slow)
    assert overhead.measure("euler", X, watch) == overhead.Cost(7.0, 0.0, 0.0)


def test_events_are_compared_when_they_have_happened(monkeypatch):
    """The path of a GPU, with events that count milliseconds as CUDA's do."""
    clock = iter(range(10**6))

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing
            self.at, self.happened = None, False

        def record(self):
            self.at = next(clock)

        def synchronize(self):
            self.happened = True

        def elapsed_time(self, other):
            assert other.happened
            return float(other.at - self.at)

    monkeypatch.setattr(torch, "cuda", SimpleNamespace(Event=Event))
    cost = overhead.measure("heun", X, StreamWatch())
    # A millisecond from mark to mark: two calls of the model and of the search take one each.
    assert cost.nan == pytest.approx(2e-3) and cost.step == pytest.approx(4e-3)
    assert overhead.Copies(X, StreamWatch()).bandwidth() == pytest.approx(2 * X.numel() * 4 / 1e-3)


def test_the_watch_for_a_device():
    assert isinstance(stopwatch(torch.device("cpu"), 1), HostWatch)
    with pytest.raises(SystemExit, match="no device 'meta'"):
        stopwatch(torch.device("meta"), 1)
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="where a GPU is"):
            stopwatch(torch.device("cuda"), 1)


def test_the_table(capsys):
    overhead.main(["euler", "unipc", "--shape", "4", "8"])
    out = capsys.readouterr().out
    assert "| `euler` |" in out and "| 1 | 3 of 4 |" in out
    assert "| `unipc` |" in out and "| 5 | 6 of 17 |" in out
