"""``gatekit samplers``: every sampler, what it costs and which parameters it takes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from gatekit.cli.options import JsonOption

WIDTH = 80  # of a terminal that nobody made wider


def samplers(as_json: JsonOption = False) -> None:
    """List the samplers and their parameters."""
    from gatekit.cli.options import print_json
    from gatekit.explain import columns
    from gatekit.registry import list_samplers

    found = [about(cls) for cls in list_samplers().values()]
    if as_json:
        print_json(found)
        return
    heads = columns(
        [
            ("name", "order", "evaluations a step", "noise"),
            *((e["name"], str(e["order"]), evaluations(e), noise(e)) for e in found),
        ]
    )
    print(heads[0])
    for line, entry in zip(heads[1:], found, strict=True):
        print("\n".join([line, *details(entry)]))


def evaluations(entry: Mapping[str, Any]) -> str:
    """What a step costs; a sampler that chooses its steps has no number."""
    return "adaptive" if entry["adaptive"] else str(entry["nfe_per_step"])


def noise(entry: Mapping[str, Any]) -> str:
    """Whether it draws noise."""
    return "yes" if entry["stochastic"] else "no"


def details(entry: Mapping[str, Any]) -> list[str]:
    """What a sampler is, and its parameters with their defaults, in lines that fit a terminal."""
    params = ", ".join(f"{name}={short(value)}" for name, value in entry["params"].items())
    texts = [entry["about"], *([f"parameters: {params}"] if params else [])]
    return [
        line
        for text in texts
        for line in textwrap.wrap(
            text, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False
        )
    ]


def short(value: Any) -> str:
    """A default: of 2/3 as much as tells it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def about(cls: Any) -> dict[str, Any]:
    """What is worth knowing of a sampler, as plain data."""
    fields = cls.Params.model_fields.items()
    return {
        "name": cls.name,
        "order": cls.order,
        "nfe_per_step": cls.nfe_per_step,
        "stochastic": cls.stochastic,
        "adaptive": cls.adaptive,
        "params": {name: field.get_default(call_default_factory=True) for name, field in fields},
        "about": (cls.__doc__ or "").strip().split("\n")[0],
        "class": f"{cls.__module__}.{cls.__name__}",
    }
