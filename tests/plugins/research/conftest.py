"""The fake project with variants to compare: the error of each is known in closed form."""

import json

import pytest

from gatekit.cli import call

GAINS = {"coarse": 0.5, "fine": 0.8, "near": 0.52, "far": 0.3, "soft": 0.7}


@pytest.fixture
def study(project, monkeypatch):
    """The fake project, entered, with files ``near`` and ``far`` (high) and ``soft`` (low)."""
    monkeypatch.chdir(project)
    for i, (name, gain) in enumerate(GAINS.items()):
        content = {
            "gain": gain,
            "bits": [16.0, 16.0, 8.0, 2.0, 4.0][i],
            "resident": 2**20 * (i + 1),
        }
        (project / f"{name}.num").write_text(json.dumps(content))
    text = (project / "fake.yaml").read_text()
    more = "".join(
        f"  {name}: {{use: number, expert: {expert}, file: {name}.num}}\n"
        for name, expert in {"near": "high", "far": "high", "soft": "low"}.items()
    )
    (project / "fake.yaml").write_text(text.replace("video:", more + "video:", 1))
    (project / "p.txt").write_text("# what to show\na cat\n\na dog on a hill\n")
    return project


@pytest.fixture
def gatekit(capsys):
    """Calls a command line: (exit code, stdout, stderr)."""

    def run(*line):
        code = call([str(word) for word in line])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run
