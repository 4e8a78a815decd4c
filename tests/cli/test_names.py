"""Names of files that are no UTF-8, as Linux has them; and prompts, which must be text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatekit import load_schedule
from gatekit.cli import call

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture
def folder(project, monkeypatch):
    """The project, in a folder whose name is Latin-1."""
    place = project.parent / LATIN
    try:
        project.rename(place)
    except OSError:  # macOS has UTF-8 alone
        pytest.skip("this file system takes no such name")
    monkeypatch.chdir(place)
    return place


@pytest.mark.parametrize("name", ["mp4", "webp", "safetensors"])
def test_a_folder_and_a_result_in_latin_1(folder, name, capsysbinary, monkeypatch):
    (folder / f"{LATIN}.num").write_bytes((folder / "fine.num").read_bytes())
    out, change = f"{LATIN}.{name}", f"variants.fine.file={LATIN}.num"
    # As the entry point has it.
    sys.stdout.reconfigure(errors="surrogateescape")
    assert call(["run", "fake.yaml", "-p", "x", "-o", out]) == 0
    assert capsysbinary.readouterr().out == os.fsencode(out) + b"\n"
    record = json.loads((folder / f"{LATIN}.run" / "run.json").read_text("utf-8"))
    assert record["folder"] == str(folder) and record["out"] == str(folder / out)
    assert load_schedule(folder / out).name == "fake"
    assert call(["run", "fake.yaml", "-p", "x", "-o", out, "--set", change]) == 2  # no text


def test_the_entry_point_prints_such_a_name(tmp_path):
    code = "import sys; from gatekit.cli import main; sys.argv = ['gatekit', '--version']\n"
    code += "try: main()\nexcept SystemExit: print('caf\\udce9')"
    environment = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert done.stdout.endswith(b"caf\xe9\n"), done.stderr


@pytest.mark.parametrize("option", ["-p", "-n"])
def test_a_prompt_that_is_no_text(project, option, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert call(["run", "fake.yaml", "-p", "x", option, LATIN, "-o", "out.mp4"]) == 2
    assert f"{option}: this is no text in UTF-8" in capsys.readouterr().err
    assert not Path("out.run").exists()
