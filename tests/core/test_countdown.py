"""Progress without a terminal: a line a minute, with the time left."""

import pytest

from gatekit.countdown import Countdown, duration


def test_a_line_a_minute_with_the_time_left(capsys):
    now = 0.0
    with Countdown(10, clock=lambda: now) as bar:
        bar.doing("near")
        now = 100.0  # loading, which says nothing of the pace
        bar.advance()
        assert capsys.readouterr().err == ""
        for i in range(1, 5):
            now = 100.0 + 20.0 * i
            bar.advance()
    assert capsys.readouterr().err == "gatekit: near: 2/10, about 3 min left\n" + (
        "gatekit: near: 5/10, about 2 min left\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text
