"""``gatekit schema``: the JSON Schema of schedule files, for editors."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of schedules, for editors."""
    from gatekit.cli.options import print_json
    from gatekit.schema import json_schema

    print_json(json_schema())
