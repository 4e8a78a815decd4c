"""``gatekit samplers``: every sampler, what it costs and which parameters it takes."""

from __future__ import annotations

from typing import Any

from gatekit.cli.options import Json


def samplers(as_json: Json = False) -> None:
    """List the samplers and their parameters."""
    from gatekit.cli.options import print_json
    from gatekit.explain import columns
    from gatekit.registry import list_samplers

    found = [about(cls) for cls in list_samplers().values()]
    if as_json:
        print_json(found)
        return
    rows = [("name", "order", "evals", "noise", "parameters", "about")]
    for entry in found:
        params = ", ".join(f"{k}={v}" for k, v in entry["params"].items())
        noise = "yes" if entry["stochastic"] else "no"
        evals = "adaptive" if entry["adaptive"] else str(entry["nfe_per_step"])
        rows.append(
            (entry["name"], str(entry["order"]), evals, noise, params or "-", entry["about"])
        )
    print("\n".join(columns(rows)))


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
