"""``gatekit bench``: how fast Wan models run here, beside the bounds and beside diffusers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatekit import ModelFamily, hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def gatekit_register_commands(app: typer.Typer) -> None:
    """``gatekit bench``."""
    from gatekit_bench.command import bench

    app.command("bench")(bench)


@hookimpl
def gatekit_register_families() -> list[type[ModelFamily]]:
    """``synthetic``, which the command runs."""
    from gatekit_bench.family import SyntheticFamily

    return [SyntheticFamily]
