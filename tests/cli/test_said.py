"""What plugins log, on the terminal of who runs a schedule."""

import io
import logging
import sys

from gatekit.cli import call

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
