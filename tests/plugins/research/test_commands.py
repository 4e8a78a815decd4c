"""The package's commands: each is there, and none costs torch before it runs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import typer

import gatekit_research

ROOT = Path(__file__).parents[3]


def test_the_package_is_an_entry_point_and_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["gatekit"]["research"] == "gatekit_research"
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "plugins/gatekit_research" in packages


def test_every_command_is_registered():
    app = typer.Typer()
    gatekit_research.gatekit_register_commands(app)
    assert {command.name for command in app.registered_commands} == set(gatekit_research.COMMANDS)


def test_registering_imports_nothing_heavy():
    code = (
        "import sys, typer, gatekit_research as r\n"
        "r.gatekit_register_commands(typer.Typer())\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'diffusers', 'rich.table'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
