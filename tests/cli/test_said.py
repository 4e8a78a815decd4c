"""What plugins log, on the terminal of who runs a schedule."""

import logging

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
