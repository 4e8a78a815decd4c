"""``gatekit new-plugin``: what it writes and refuses; that it works: test_example_plugin.py."""

import ast
import tomllib

import pytest

from gatekit.cli import call


def made(tmp_path, name="gatekit-bend"):
    assert call(["new-plugin", name, "--out", str(tmp_path)]) == 0
    return tmp_path / name


def test_it_writes_a_complete_package(tmp_path, capsys):
    package = made(tmp_path)
    files = sorted(str(f.relative_to(package)) for f in package.rglob("*") if f.is_file())
    assert files == [
        "README.md",
        "pyproject.toml",
        "src/gatekit_bend/__init__.py",
        "src/gatekit_bend/py.typed",
        "tests/test_contract.py",
    ]
    project = tomllib.loads((package / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["gatekit"] == {"bend": "gatekit_bend"}
    assert project["project"]["dependencies"][0].startswith("gatekit-diffusion>=")
    assert "use: bend" in (package / "README.md").read_text()
    told = capsys.readouterr().out
    assert str(package) in told
    assert "pytest" in told


@pytest.mark.parametrize(
    ("name", "sampler", "cls"),
    [("gatekit-bend", "bend", "Bend"), ("my_new-one2", "my_new_one2", "MyNewOne2")],
)
def test_the_sampler_is_called_after_the_package(tmp_path, name, sampler, cls):
    package = made(tmp_path, name)
    (file,) = package.glob("src/*/__init__.py")
    tree = ast.parse(file.read_text())
    assert cls in [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert f'Params = "{sampler}", 2, 2' in file.read_text()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Bend", "NAME: not a name for a package (got 'Bend'); use lower-case letters"),
        ("../bend", "not a name for a package"),
        ("bend-", "not a name for a package"),
        ("2bend", "not a name for a package"),
        ("lambda", "not a name for a package"),
        ("gatekit-euler", "a sampler of that name is installed (got 'euler'); choose another"),
        ("json", "a Python package of that name is installed (got 'json')"),
        ("gatekit", "a Python package of that name is installed"),
    ],
)
def test_names_are_checked(tmp_path, capsys, name, told):
    assert call(["new-plugin", name, "--out", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path, capsys):
    (made(tmp_path) / "README.md").write_text("mine")
    assert call(["new-plugin", "gatekit-bend", "--out", str(tmp_path)]) == 2
    assert "nothing is overwritten; choose another name" in capsys.readouterr().err
    assert (tmp_path / "gatekit-bend/README.md").read_text() == "mine"


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert call(["new-plugin", "gatekit-bend", "--out", str(tmp_path / "file")]) == 2
    assert "choose a folder you may write to" in capsys.readouterr().err
