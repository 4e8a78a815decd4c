"""A sweep of the fake family: two cases at two numbers of steps, two prompts."""

import pytest

SWEEP = """\
version: 1
name: small
base: fake.yaml
list:
  - {name: plain}
  - {name: euler, set: {phases.high.sampler: euler}}
reference: {set: {sigmas.steps: 16}}
grid:
  sigmas.steps: [6, 8]
prompts: [a ball, a longer ball]
seeds: 1
metrics: [latent_rmse, x0_divergence, psnr]
"""


@pytest.fixture
def sweep(project):
    """Writes a sweep file into the project, some of its text replaced, and gives its path."""

    def write(*changes, text=SWEEP):
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        file = project / "sweep.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture
def call(project, monkeypatch):
    """Runs ``gatekit sweep`` in the project's folder; its exit code."""
    from gatekit import cli

    monkeypatch.chdir(project)
    return lambda *arguments: cli.call(["sweep", *map(str, arguments)])
