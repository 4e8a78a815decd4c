"""What k-diffusion offers, read from its file without running it: names, parameters, noise."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatekit import install_extra

INSTALL = f"pip install --no-deps k-diffusion, and {install_extra('k-diffusion')}"
OURS = ("extra_args", "callback", "disable", "noise_sampler", "return_info")


@dataclass(frozen=True)
class Option:
    """One parameter: its default (None where that is infinite) and what it is limited to."""

    default: float | int | str | bool | None
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Function:
    """One ``sample_*`` function.

    Attributes:
        name: Without ``sample_``.
        file: The package's file.
        summary: First line of its docstring.
        grid: What it wants after model and x: ``("sigmas",)``, or ends of a range.
        options: Its parameters, without those that gatekit fills in.
        draws: Whether it takes a ``noise_sampler``.
        brownian: Whether its own noise sampler is a Brownian path.
    """

    name: str
    file: Path
    summary: str
    grid: tuple[str, ...]
    options: dict[str, Option]
    draws: bool
    brownian: bool


def sampling_file() -> Path | None:
    """``k_diffusion/sampling.py`` of the installed package, found without importing it."""
    try:
        spec = importlib.util.find_spec("k_diffusion")
    except (ImportError, ValueError):
        return None
    folders = spec.submodule_search_locations if spec is not None else None
    files = [Path(folder) / "sampling.py" for folder in folders or ()]
    return next((file for file in files if file.is_file()), None)


def functions(file: Path) -> list[Function]:
    """Every ``sample_*`` function of the file, in its order."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        described(node, file)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("sample_")
    ]


def described(node: ast.FunctionDef, file: Path) -> Function:
    """What one function's text says."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    first_optional = len(names) - len(node.args.defaults)
    defaults = dict(zip(names[first_optional:], node.args.defaults, strict=True))
    defaults |= {
        argument.arg: default
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is not None
    }
    limits = dict(choices(node))
    options = {
        name: Option(plain(default), limits.get(name, ()))
        for name, default in defaults.items()
        if name not in OURS and readable(default)
    }
    used = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
    return Function(
        name=node.name.removeprefix("sample_"),
        file=file,
        summary=(ast.get_docstring(node) or "").split("\n")[0].rstrip("."),
        grid=tuple(names[2:first_optional]),
        options=options,
        draws="noise_sampler" in defaults,
        brownian="BrownianTreeNoiseSampler" in used,
    )


def choices(node: ast.FunctionDef) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Parameters that the function refuses outside a set: ``if name not in {...}``."""
    for child in ast.walk(node):
        match child:
            case ast.Compare(ast.Name(name), [ast.NotIn()], [ast.Set(values)]):
                yield name, tuple(sorted(ast.literal_eval(value) for value in values))
            case _:
                pass


def readable(node: ast.expr) -> bool:
    """Whether a default is one that ``plain`` can tell and a schedule can say."""
    try:
        value = plain(node)
    except (ValueError, TypeError):
        return False
    return isinstance(value, (bool, int, float, str)) or isinstance(node, ast.Call)


def plain(node: ast.expr) -> Any:
    """A default as a number, a word, or None for infinity.

    Raises:
        ValueError: It is something else.
    """
    match node:
        case ast.Call(ast.Name("float"), [ast.Constant("inf")]):
            return None
        case ast.BinOp(left, ast.Div(), right):
            return plain(left) / plain(right)
        case _:
            return ast.literal_eval(node)
