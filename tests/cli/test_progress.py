"""What is said of progress: bars on a terminal, else lines for a log."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from gatekit import load_schedule, resolve
from gatekit.cli.progress import Bars, Lines


@pytest.fixture
def plan(project):
    return resolve(load_schedule(project / "fake.yaml"))


class Session:
    def __init__(self):
        self.phases = []

    def stepping(self, phase):
        self.phases.append(phase)


def test_a_line_where_a_phase_begins_then_one_a_minute(plan, capsys):
    now, session = [0.0], Session()
    with Lines(plan, session, {"high": 1}, clock=lambda: now[0]) as lines:
        lines.doing("loading coarse")
        now[0] = 500.0
        lines.doing("high")
        for _ in range(2):
            now[0] += 20.0
            lines.step(SimpleNamespace(phase="high"))
        assert capsys.readouterr() == ("", "gatekit: high: begins at step 2/3\n")
        lines.doing("low")
        for _ in range(5):
            now[0] += 35.0
            lines.step(SimpleNamespace(phase="low"))
    out, err = capsys.readouterr()
    assert not out
    assert err.splitlines() == [
        "gatekit: low: begins at step 1/5",
        "gatekit: low: step 2/5, 70 s",
        "gatekit: low: step 4/5, 140 s",
    ]
    assert session.phases == [None, "high", "low"]


def test_bars_say_what_each_time_is(plan):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with Bars(plan, Session(), {}, console) as bars:
        bars.doing("high")
        for _ in range(3):
            bars.step(SimpleNamespace(phase="high"))
    line = [x for x in stream.getvalue().splitlines() if "high" in x][-1]
    assert "3/3 took 0:00:00 left 0:00:00" in line
