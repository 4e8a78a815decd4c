"""Metrics by name."""

from __future__ import annotations

from gatekit.metric import Metric
from gatekit.registry import registry


def list_metrics() -> dict[str, type[Metric]]:
    """Every metric that an installed plugin offers, by name."""
    return dict(sorted(registry().metrics.items()))


def find_metric(name: str, where: str | None = None) -> type[Metric]:
    """The metric of a name.

    Args:
        name: What a sweep says.
        where: Place of the name, for the error.

    Raises:
        PluginError: No plugin, or more than one, offers it.
    """
    return registry().get("metric", name, where)
