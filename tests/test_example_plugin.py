"""The third-party path: packages are built, installed apart, tested, and used by name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gatekit.cli import call

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "gatekit-pece"

BY_NAME = """
import importlib.util, sys
import torch
import gatekit
from gatekit.registry import registry

name, package, fake = sys.argv[1:]
assert registry().plugins[name].package == package, registry().plugins
assert not registry().broken, registry().broken
sampler = registry().plugins[name].module.split("gatekit_")[-1]
assert gatekit.list_samplers()[sampler].__module__ == registry().plugins[name].module

x = torch.zeros(1, 2)
assert gatekit.sample(lambda x, s: x * 0 + 1, x, [1.0, 0.5, 0.0], sampler=sampler).eq(1).all()

spec = importlib.util.spec_from_file_location("fakefamily", fake)
module = importlib.util.module_from_spec(spec)
sys.modules["fakefamily"] = module
spec.loader.exec_module(module)
registry().register(module, "fake")
schedule = gatekit.load_schedule("fake.yaml", {"phases.high.sampler.use": sampler})
result = gatekit.run(gatekit.resolve(schedule), gatekit.Inputs(prompt="a ball"))
assert {r.sampler for r in result.trajectory} == {sampler, "euler"}
"""


def run(*argv, cwd, packages=None):
    """A process that finds the packages of one folder beside those of the environment."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    if packages is not None:
        environment["PYTHONPATH"] = str(packages)
    argv = [sys.executable, *map(str, argv)]
    done = subprocess.run(argv, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


def installed(source, folder):
    """A package built as a wheel and installed into a folder of its own, without a network."""
    offline = ["-q", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run("-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run("-m", "pip", "install", *offline, "--target", folder / "site", wheel, cwd=folder)
    return folder / "site"


def check(package, tmp_path):
    """Built, installed, and its own tests pass with its source out of sight; where it lies."""
    source = tmp_path / "source"
    shutil.copytree(package, source, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "built"
    folder.mkdir()
    site = installed(source, folder)
    shutil.rmtree(source / "src")
    told = run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=source, packages=site)
    assert " passed" in told
    assert not {"failed", "skipped", "error"} & set(told.split())
    return site


def test_the_example_is_built_installed_and_run_by_name(project, tmp_path):
    site, fake = check(EXAMPLE, tmp_path), ROOT / "tests" / "fakefamily.py"
    run("-c", BY_NAME, "pece", EXAMPLE.name, fake, cwd=project, packages=site)


def test_a_new_plugin_is_built_and_passes_its_own_tests(tmp_path, capsys):
    assert call(["new-plugin", "gatekit-bend", "--out", str(tmp_path)]) == 0
    assert "src/gatekit_bend/__init__.py" in capsys.readouterr().out
    package = tmp_path / "gatekit-bend"
    run("-m", "ruff", "check", "--no-cache", package, cwd=tmp_path)
    run("-m", "ruff", "format", "--no-cache", "--check", package, cwd=tmp_path)
    text = (package / "src/gatekit_bend/__init__.py").read_text()
    assert 'name, order, nfe_per_step, Params = "bend"' in text
    check(package, tmp_path)


def test_the_example_is_as_short_as_is_said():
    text = (EXAMPLE / "src/gatekit_pece/__init__.py").read_text()
    body = text[text.index("class PECE(") : text.index("@hookimpl")]
    assert 25 <= len(body.strip().splitlines()) <= 50


@pytest.mark.parametrize("file", ["README.md", "pyproject.toml"])
def test_the_example_is_told_of_where_authors_look(file):
    assert "pece" in (EXAMPLE / file).read_text()
    assert "docs/examples/gatekit-pece" in (ROOT / "docs/publishing-a-plugin.md").read_text()
