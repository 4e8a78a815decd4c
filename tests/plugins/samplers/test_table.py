"""The table of docs/samplers.md is what the registry says and what is measured.

``python tests/plugins/samplers/test_table.py`` prints it anew.
"""

import math
from functools import cache
from pathlib import Path

import pytest
import torch

import gatekit
from gatekit.testing import Mixture
from gatekit_samplers import SAMPLERS

PAGE = Path(__file__).parents[3] / "docs" / "samplers.md"
QUIET = ({"eta": 0.0}, {"tau": 0.0}, {"scale": "ode"})


def quiet(cls):
    """The sampler without noise; None if it has no such form, or no fixed steps."""
    if cls.adaptive:
        return None
    if not cls.stochastic:
        return cls()
    for params in QUIET:
        if next(iter(params)) in cls.Params.model_fields:
            return cls(cls.Params(**params))
    return None


@cache
def problem():
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return x, Mixture().flow(x, 0.9, 0.2, steps=1000)


def measured(sampler):
    """Order on the mixture from 0.9 to 0.2, between 40 and 80 steps."""
    x, truth = problem()
    errors = []
    for steps in (40, 80):
        sigmas = [0.9 - 0.7 * i / steps for i in range(steps)] + [0.2]
        end = gatekit.sample(Mixture(), x, sigmas, sampler=sampler)
        errors.append(float((end - truth).square().mean().sqrt()))
    return math.log2(errors[0] / errors[1])


def row(cls, order):
    text = " ".join(cls.__doc__.split())
    about = text.split(". ")[0]
    source = text.split("Source: ")[1].rstrip(".").replace("``", "`")
    values = ((k, f.get_default()) for k, f in cls.Params.model_fields.items())
    params = ", ".join(
        f"`{k}: {round(v, 4) if isinstance(v, float) else 'none' if v is None else v}`"
        for k, v in values
    )
    nfe = f"{cls.nfe_per_step} a try" if cls.adaptive else cls.nfe_per_step
    cells = [f"`{cls.name}`", order, nfe, "yes" if cls.stochastic else "", params, about, source]
    return "| " + " | ".join(str(cell).replace("|", r"\|") for cell in cells) + " |"


def table():
    """Every row, with the order measured now."""
    rows = []
    for cls in SAMPLERS:
        still = quiet(cls)
        rows.append(row(cls, "" if still is None else f"{measured(still):.2f}"))
    return rows


def printed():
    lines = PAGE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| name | order measured"))
    rows = lines[start + 2 :]
    return rows[: next(i for i, line in enumerate(rows) if not line.startswith("|"))]


def test_the_page_lists_every_sampler_in_order():
    assert [line.split("`")[1] for line in printed()] == [cls.name for cls in SAMPLERS]


@pytest.mark.parametrize("cls", SAMPLERS, ids=lambda cls: cls.name)
def test_a_row_says_what_the_class_says(cls):
    (line,) = [text for text in printed() if text.startswith(f"| `{cls.name}` |")]
    found, sampler = line.split(" | ")[1].strip(), quiet(cls)
    assert line == row(cls, found)
    if sampler is None:
        assert found == ""
    else:
        assert float(found) == pytest.approx(measured(sampler), abs=0.02)
        assert abs(float(found) - sampler.order) <= 0.3


if __name__ == "__main__":
    print("\n".join(table()))
