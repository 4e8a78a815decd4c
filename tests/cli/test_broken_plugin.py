"""Installed plugins that do not import or that clash: named, and in nobody's way."""

from pathlib import Path

import pytest

import gatekit
from gatekit.cli import call
from gatekit.registry import registry

pytest.importorskip("av")


def package(folder, name, module, text):
    """What an installed package with an entry point looks like."""
    (folder / f"{module}.py").write_text(text)
    info = folder / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[gatekit]\n{module} = {module}\n")


SAMPLER = """\
from gatekit import Sampler, StepResult, hookimpl


class {title}(Sampler):
    name = "curl"

    def step(self, c):
        d = c.denoise(c.x, c.sigma)
        return StepResult(c.transfer(c.x, d, c.sigma_next), d)


@hookimpl
def gatekit_register_samplers():
    return [{title}]
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    registry.cache_clear()
    yield folder
    registry.cache_clear()


@pytest.fixture
def here(site, request, monkeypatch):
    """The fake project; made by each test once its packages are there."""

    def make():
        folder = request.getfixturevalue("project")
        monkeypatch.chdir(folder)
        return folder

    return make


def test_one_that_does_not_import_is_named_and_skipped(site, here, capsys):
    package(site, "curl-sampler", "curl_sampler", "import no_such_module_at_all\n")
    here()
    assert call(["run", "fake.yaml", "-p", "a ball", "-o", "out.mp4"]) == 0
    told = capsys.readouterr().err
    assert (
        "gatekit: warning: plugin curl_sampler (curl-sampler 1.2) was not loaded: "
        "ModuleNotFoundError: No module named 'no_such_module_at_all'" in told
    )
    assert call(["plugins"]) == 0
    assert "BROKEN: ModuleNotFoundError" in capsys.readouterr().out


def test_one_that_does_not_import_is_an_error_where_it_is_needed(site, here, capsys):
    package(site, "curl-sampler", "curl_sampler", "import no_such_module_at_all\n")
    here()
    argv = ["run", "fake.yaml", "-p", "a ball", "--set", "phases.low.sampler=curl"]
    assert call(argv) == 2
    told = capsys.readouterr().err
    assert "unknown sampler 'curl'" in told
    assert "Not loaded: plugin curl_sampler (curl-sampler 1.2): ModuleNotFoundError" in told


def test_two_of_one_name_are_both_named(site, here, capsys):
    package(site, "curl-one", "curl_one", SAMPLER.format(title="CurlOne"))
    package(site, "curl-two", "curl_two", SAMPLER.format(title="CurlTwo"))
    here()
    assert call(["plan", "fake.yaml", "--set", "phases.low.sampler=curl"]) == 2
    told = capsys.readouterr().err
    assert "two plugins offer the sampler 'curl'" in told
    assert "curl_one.CurlOne (curl-one)" in told
    assert "curl_two.CurlTwo (curl-two)" in told
    assert "uninstall one of the two packages" in told
    assert call(["plan", "fake.yaml"]) == 0


QUICKSTART = str(Path(gatekit.__file__).parents[1] / "schedules" / "quickstart.yaml")
WRITES = SAMPLER + '\n\nfrom pathlib import Path\n\nPath(__file__).with_suffix(".ran").touch()\n'


@pytest.mark.parametrize("limit", ["none", "other", "other-package"])
def test_a_plugin_that_is_left_out_does_not_run(site, capsys, limit):
    name = f"curls_{limit.replace('-', '_')}"  # Python imports each once
    package(site, "a-package", name, WRITES.format(title="Curl"))
    package(site, "other-package", "other", "X = 1")
    assert call(["plugins", "--plugins", limit]) == 0
    said = capsys.readouterr().out
    assert f"{name} (a-package 1.2)\n  from: {site / name}.py\n  not loaded: left out" in said
    assert ("\n  from: " + str(site / "other.py") + "\n  not loaded" in said) == (limit == "none")
    changed = "--set=phases.polish.sampler=curl"
    assert call(["plan", QUICKSTART, changed, f"--plugins={limit}"]) == 2
    assert f"plugin {name} (a-package 1.2): left out by --plugins" in capsys.readouterr().err
    assert not (site / f"{name}.ran").exists()
    assert call(["plugins", "--plugins", name]) == 0
    assert "sampler: curl\n" in capsys.readouterr().out
    assert (site / f"{name}.ran").exists()


def test_a_limit_of_an_unknown_name(site, capsys):
    package(site, "a-package", "curls", SAMPLER.format(title="Curl"))
    assert call(["plugins", "--plugins", "culrs"]) == 2
    assert (
        "--plugins: no such plugin (got 'culrs'); did you mean 'curls'?" in capsys.readouterr().err
    )
    assert call(["plugins"]) == 0  # and it holds for that command alone
    assert "sampler: curl\n" in capsys.readouterr().out


COMMANDS = """\
from gatekit import hookimpl


@hookimpl
def gatekit_register_commands(app):
    @app.command("{name}")
    def command():
        "Does nothing."
        print("{name} ran")

    {then}
"""


@pytest.mark.parametrize(
    "then", ["raise RuntimeError('oh')", "raise SystemExit(3)", "import nothing_"]
)
def test_a_plugin_that_cannot_add_its_commands_keeps_no_other_from_it(site, capsys, then):
    package(site, "good", "good_one", COMMANDS.format(name="good-command", then="pass"))
    package(site, "evil", "evil_one", COMMANDS.format(name="evil-command", then=then))
    assert call(["good-command"]) == 0
    said = capsys.readouterr()
    assert said.out == "good-command ran\n"
    assert "warning: plugin evil_one could not add its commands: " in said.err
    assert call(["--help"]) in (0, None)


def test_a_plugin_that_exits_when_it_is_imported(site, here, capsys):
    package(site, "leaver", "leaver", "import sys\nsys.exit('bye')\n")
    here()
    assert call(["run", "fake.yaml", "-p", "a ball", "-o", "out.mp4"]) == 0
    assert "plugin leaver (leaver 1.2) was not loaded: SystemExit: bye" in capsys.readouterr().err
