"""What lasts and has no steps is said after a while, and no more once it is over."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from gatekit import load_schedule, resolve
from gatekit.cli.progress import Lines
from gatekit.cli.waiting import EVERY, FIRST, Waiting


class Clock:
    """Seconds that pass when told, and the timers that run on them."""

    def __init__(self):
        self.now, self.timers = 0.0, []

    def __call__(self):
        return self.now

    def timer(self, seconds, call):
        at = self.now + seconds
        made = SimpleNamespace(daemon=False, at=at, call=call, cancelled=False)
        made.start = lambda: self.timers.append(made)
        made.cancel = lambda: setattr(made, "cancelled", True)
        return made

    def pass_by(self, seconds, *, late=False):
        """``late``: timers fire although they were cancelled, as one may that had begun to."""
        end = self.now + seconds
        while due := [t for t in self.timers if t.at <= end and (late or not t.cancelled)]:
            first = min(due, key=lambda t: t.at)
            self.timers.remove(first)
            assert first.daemon, "a run that ends does not wait for it"
            self.now = max(self.now, first.at)
            first.call()
        self.now = end


@pytest.fixture
def clock():
    return Clock()


def waiting(clock, said):
    return Waiting(lambda what, seconds: said.append((what, seconds)), clock.timer, clock)


def test_after_ten_seconds_then_once_a_minute(clock):
    said = []
    waits = waiting(clock, said)
    waits.begin("loading fine")
    clock.pass_by(FIRST - 1)
    assert not said
    clock.pass_by(2 * EVERY + 2)
    assert said == [("loading fine", FIRST + i * EVERY) for i in range(3)]


@pytest.mark.parametrize("late", [False, True])
def test_what_is_over_is_not_said(clock, late):
    said = []
    waits = waiting(clock, said)
    waits.begin("encoding")
    clock.pass_by(FIRST / 2)
    waits.begin("loading fine")
    clock.pass_by(0.75 * FIRST, late=late)
    assert not said
    clock.pass_by(FIRST, late=late)
    assert said == [("loading fine", FIRST)]
    waits.end()
    clock.pass_by(10 * EVERY, late=late)
    assert len(said) == 1


def test_with_real_timers_nothing_is_left():
    before = threading.active_count()
    waits = Waiting(lambda *_: None)
    for what in ("a", "b", "c"):
        waits.begin(what)
    waits.end()
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join(5.0)
    assert threading.active_count() == before


def test_lines_of_a_run(project, capsys, clock, monkeypatch):
    from gatekit.cli import progress

    monkeypatch.setattr(progress, "Waiting", lambda say: Waiting(say, clock.timer, clock))
    plan = resolve(load_schedule(project / "fake.yaml"))
    session = SimpleNamespace(stepping=lambda phase: None)
    with Lines(plan, session, {}, clock) as lines:
        lines.doing("loading coarse")
        clock.pass_by(75.0)
        lines.doing("high")
        clock.pass_by(500.0)
        lines.doing("loading fine")
    clock.pass_by(500.0)
    assert capsys.readouterr().err.splitlines() == [
        "gatekit: loading coarse, 10 s",
        "gatekit: loading coarse, 70 s",
        "gatekit: high: begins at step 1/3",
    ]


def test_where_no_thread_can_be_had_nothing_is_said():
    class Refused(SimpleNamespace):
        def start(self):
            raise RuntimeError("can't start new thread")

        def cancel(self):
            pass

    waiting = Waiting(lambda *_: None, lambda seconds, call: Refused())
    waiting.begin("reading")
    waiting.end()
