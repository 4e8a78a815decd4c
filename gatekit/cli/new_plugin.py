"""``gatekit new-plugin``: a complete package with one sampler, ready to build and publish."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template
from typing import Annotated

import typer

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the package, such as gatekit-mine: the sampler is called mine.",
    ),
]
Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder that the package's folder goes into.")
]

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.24"]
build-backend = "hatchling.build"

[project]
name = "$name"
version = "0.1.0"
description = "A sampler for gatekit"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["gatekit-diffusion>=$version"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points.gatekit]
$sampler = "$module"

[tool.hatch.build.targets.wheel]
packages = ["src/$module"]

[tool.pytest.ini_options]
testpaths = ["tests"]

[tool.ruff]
line-length = 100

[tool.ruff.lint]
select = ["E", "F", "I", "UP", "B"]
"""

SAMPLER = '''\
"""A sampler for gatekit: ``$sampler``."""

from __future__ import annotations

from gatekit import Sampler, SamplerParams, StepContext, StepResult, hookimpl
from pydantic import Field


class ${title}Params(SamplerParams):
    """What a schedule may say beside ``use: $sampler``."""

    position: float = Field(0.5, ge=0.1, le=1, description="Where in the step to look again.")


class $title(Sampler):
    """Two-stage Runge-Kutta on dx/dsigma = v; position 0.5 is the midpoint rule, 1 is Heun's.

    x_a = x + a h v, x' = x + h ((1 - 1/(2a)) v + 1/(2a) v_a), h = sigma' - sigma.
    Order 2, two evaluations a step.

    Source: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, II.1.
    """

    name, order, nfe_per_step, Params = "$sampler", 2, 2, ${title}Params

    def step(self, c: StepContext) -> StepResult:
        """From (c.x, c.sigma) to c.sigma_next, which is above 0."""
        a, h = self.params.position, c.sigma_next - c.sigma
        denoised = c.denoise(c.x, c.sigma)
        v = c.velocity(c.x, denoised)
        x, sigma = c.x + a * h * v, c.sigma_next if a == 1.0 else c.sigma + a * h
        v_there = c.velocity(x, c.denoise(x, sigma), sigma)
        weight = 1 / (2 * a)
        return StepResult(c.x + h * ((1 - weight) * v + weight * v_there), denoised)


@hookimpl
def gatekit_register_samplers() -> list[type[Sampler]]:
    """Offer it to gatekit."""
    return [$title]
'''

TEST = '''\
"""The whole contract of a gatekit sampler."""

import gatekit
from gatekit.testing import parametrize_with_checks

from $module import $title, ${title}Params


@parametrize_with_checks($title, $title(${title}Params(position=1.0)))
def test_contract(sampler, check):
    """Order, exactness, cuts, resumes, batches, dtypes, boundaries, ..."""
    check(sampler)


def test_it_is_found_by_name():
    """Installed, a schedule can say ``sampler: {use: $sampler}``."""
    assert gatekit.list_samplers()["$sampler"] is $title
'''

README = """\
# $name

A sampler for gatekit.

```yaml
phases:
  - {name: structure, until: 0.9, variant: high, sampler: {use: $sampler, position: 0.5}}
```

In Python: `gatekit.sample(denoise, x, sigmas, sampler="$sampler")`.

Develop it:

```sh
pip install -e ".[test]"
gatekit samplers        # lists $sampler
pytest                  # runs gatekit's whole contract on it
```
"""

FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "src/$module/__init__.py": SAMPLER,
    "src/$module/py.typed": "",
    "tests/test_contract.py": TEST,
}


def new_plugin(name: Name, out: Out = Path()) -> None:
    """Write a new plugin package: a sampler, its conformance test, a README."""
    from gatekit import __version__
    from gatekit.errors import InputError

    module = checked(name)
    folder = out / name
    if folder.exists():
        raise InputError(
            "there is a file or folder of that name, and nothing is overwritten",
            where=str(folder),
            remedy="choose another name, or another folder with --out DIR",
        )
    sampler = named(module)
    title = "".join(part.capitalize() for part in sampler.split("_"))
    words = {"name": name, "module": module, "sampler": sampler, "title": title}
    words["version"] = __version__
    try:
        for path, text in FILES.items():
            file = folder / Template(path).substitute(words)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(text).substitute(words), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"the package could not be written: {error.strerror}",
            where=str(folder),
            remedy="choose a folder you may write to with --out DIR",
        ) from error
    print(f"{folder}: the sampler {sampler!r} is in src/{module}/__init__.py. Next:")
    print(f'  cd {folder} && pip install -e ".[test]" && pytest')


def named(module: str) -> str:
    """The sampler's name: the module's, without what says that it is for gatekit."""
    return module.removeprefix("gatekit_")


def checked(name: str) -> str:
    """The module's name, if the package may be called so.

    Raises:
        InputError: It is no package name, or is taken.
    """
    import importlib.util

    from gatekit.errors import InputError
    from gatekit.registry import registry

    module = name.replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(module):
        raise InputError(
            "not a name for a package",
            where="NAME",
            value=name,
            remedy="use lower-case letters and digits, with single hyphens, such as gatekit-mine",
        )
    if named(module) in registry().samplers:
        raise InputError(
            "a sampler of that name is installed",
            where="NAME",
            value=named(module),
            remedy="choose another: two plugins that offer one name stop each other",
        )
    if importlib.util.find_spec(module) is not None:
        raise InputError(
            "a Python package of that name is installed",
            where="NAME",
            value=name,
            remedy="choose another, such as gatekit-" + name.removeprefix("gatekit-") + "-sampler",
        )
    return module
