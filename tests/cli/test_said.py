"""What plugins log, on the terminal of who runs a schedule."""

import io
import logging
import os
import signal
import sys

import pytest

from gatekit.cli import call
from gatekit.saying import say

LOG = logging.getLogger("gatekit.someplugin")


def test_run_shows_what_is_logged(project, fake, monkeypatch, capsys):
    monkeypatch.chdir(project)
    encode = fake.FakeFamily.encode

    def talkative(self, inputs, video, device):
        LOG.info("embeddings from the cache: %d of %d", 2, 2)
        LOG.warning("a prompt was cut")
        LOG.debug("not this")
        return encode(self, inputs, video, device)

    monkeypatch.setattr(fake.FakeFamily, "encode", talkative)
    assert call(["run", "fake.yaml", "-p", "a ball"]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "gatekit: embeddings from the cache: 2 of 2",
        "gatekit: warning: a prompt was cut",
        "gatekit: high: begins at step 1/3",
        "gatekit: low: begins at step 1/5",
    ]
    LOG.info("after the run nobody listens")
    assert "nobody" not in capsys.readouterr().err


def test_a_line_is_one_write_so_that_threads_do_not_mix_theirs(project, fake, monkeypatch):
    monkeypatch.chdir(project)
    encode, written = fake.FakeFamily.encode, []

    class Kept(io.StringIO):
        def write(self, text):
            written.append(text)
            return len(text)

    def talkative(self, inputs, video, device):
        LOG.warning("a prompt was cut")
        return encode(self, inputs, video, device)

    monkeypatch.setattr(fake.FakeFamily, "encode", talkative)
    monkeypatch.setattr(sys, "stderr", Kept())
    assert call(["run", "fake.yaml", "-p", "a ball"]) == 0
    assert [text for text in written if text] == [
        "gatekit: warning: a prompt was cut\n",
        "gatekit: high: begins at step 1/3\n",
        "gatekit: low: begins at step 1/5\n",
    ]


class Gone(io.StringIO):
    """stderr that fails: a full disk under a log, a pipe that nobody reads, use below a signal."""

    def __init__(self, failure):
        super().__init__()
        self.failure = failure

    def write(self, text):
        raise self.failure

    flush = write


@pytest.mark.parametrize(
    "failure",
    [
        OSError(28, "No space left on device"),
        BrokenPipeError(32, "Broken pipe"),
        ValueError("I/O operation on closed file"),
        RuntimeError("reentrant call inside <_io.BufferedWriter name='<stderr>'>"),
    ],
    ids=["full", "pipe", "closed", "reentrant"],
)
def test_a_run_does_not_end_because_its_log_does(project, fake, monkeypatch, failure):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "stderr", Gone(failure))
    assert call(["run", "fake.yaml", "-p", "a ball", "-o", "out.safetensors"]) == 0
    assert (project / "out.safetensors").exists()


def test_ctrl_c_while_a_line_is_written_still_stops_after_the_step(project, fake, monkeypatch):
    monkeypatch.chdir(project)
    through, evaluations = fake.Number.through, []

    def interrupted(self, *args):
        evaluations.append(1)
        if len(evaluations) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return through(self, *args)

    monkeypatch.setattr(fake.Number, "through", interrupted)
    monkeypatch.setattr(sys, "stderr", Gone(RuntimeError("reentrant call")))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert call(["run", "fake.yaml", "-p", "a ball", "-o", "out.safetensors"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert (project / "out.run" / "checkpoint.safetensors").exists()


def test_without_a_stderr_nothing_goes_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    say("a line")
    assert capsys.readouterr().out == ""
