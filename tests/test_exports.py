"""The public names: listed once, importable, documented."""

import ast
from pathlib import Path

import pytest

import gatekit

STUB = ast.parse(Path(gatekit.__file__).with_suffix(".pyi").read_text())
IMPORTED = [a.name for n in ast.walk(STUB) if isinstance(n, ast.ImportFrom) for a in n.names]


def test_the_stub_exports_what_it_imports():
    (listed,) = (
        ast.literal_eval(node.value)
        for node in STUB.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert sorted(IMPORTED) == sorted(listed)


@pytest.mark.parametrize("name", sorted(IMPORTED))
def test_every_public_name_is_there_and_documented(name):
    found = getattr(gatekit, name)
    assert name in dir(gatekit)
    assert found.__doc__ or not isinstance(found, type), f"{name} needs a docstring"


def test_the_contract():
    samplers = {"Sampler", "SamplerParams", "StepResult", "StepContext", "StretchContext"}
    core = {"Evaluation", "State", "Phase", "HistoryPolicy", "FunctionPhase", "Cancelled"}
    calls = {"sample", "sample_phases", "list_samplers", "load_schedule", "resolve", "run"}
    assert samplers | core | calls | {"Inputs", "open_variant", "hookimpl"} <= set(IMPORTED)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError):
        gatekit.nothing_of_the_kind  # noqa: B018
