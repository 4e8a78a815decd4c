"""Help texts are whole: every argument and option of every command says what it is for."""

from __future__ import annotations

import pytest
from typer.main import get_command

from gatekit.cli.app import OF_PLUGINS, build
from gatekit.registry import registry

COMPUTED = {  # their default is known only as the command runs: the text tells it
    "run": ["--out", "--seed", "--negative", "--run-dir", "--device"],
    "decode": ["--schedule", "--fps", "--device"],
    "sweep": ["--out", "--workers", "--device"],
    "profile": ["--reference", "--prompts", "--out", "--plot", "--device"],
    "check-profile": ["--prompts", "--device"],
    "propose": ["--out"],
    "commitment": ["--prompts", "--out", "--device"],
    "curvature": ["--device"],
    "fit": ["--device"],
    "bench": ["--tokens", "--variants", "--part", "--files", "--device"],
    "step-cache": ["--threshold", "--device"],
}


@pytest.fixture(scope="module")
def commands():
    app = build()
    registry().manager.hook.gatekit_register_commands(app=app)
    return get_command(app).commands  # type: ignore[attr-defined]


def test_help_names_the_commands_of_built_in_plugins(commands):
    own = get_command(build()).commands  # type: ignore[attr-defined]
    assert set(OF_PLUGINS) == set(commands) - set(own)
    assert "bench" in get_command(build()).epilog


def test_every_parameter_is_explained(commands):
    assert set(COMPUTED) < set(commands)
    bare = [
        f"{name} {param.name}"
        for name, command in commands.items()
        for param in command.params
        if not (getattr(param, "help", None) or "").strip()
    ]
    assert bare == []


@pytest.mark.parametrize("name", COMPUTED)
def test_a_computed_default_is_told(commands, name):
    texts = {word: p.help for p in commands[name].params for word in p.opts}
    assert [word for word in COMPUTED[name] if "default: " not in texts[word]] == []
