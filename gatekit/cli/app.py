"""The typer app and its commands."""

from __future__ import annotations

from typing import Annotated

import typer

from gatekit.cli.decode import decode
from gatekit.cli.doctor import doctor
from gatekit.cli.inspect import inspect
from gatekit.cli.new_plugin import new_plugin
from gatekit.cli.plan import plan
from gatekit.cli.plugins import plugins
from gatekit.cli.run import run
from gatekit.cli.samplers import samplers
from gatekit.cli.schema import schema

COMMANDS = {
    "run": run,
    "plan": plan,
    "decode": decode,
    "inspect": inspect,
    "samplers": samplers,
    "plugins": plugins,
    "doctor": doctor,
    "schema": schema,
    "new-plugin": new_plugin,
}


def show_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from gatekit import __version__

        print(f"gatekit {__version__}")
        raise typer.Exit


# What the built-in plugins add; asking them would cost most of the time that help takes.
OF_PLUGINS = (
    "bench", "check-profile", "commitment", "curvature", "fit", "profile", "propose", "report",
    "step-cache", "sweep",
)  # fmt: skip


def build() -> typer.Typer:
    """A new app with gatekit's own commands; plugins may add theirs."""
    app = typer.Typer(
        name="gatekit",
        help="Videos from schedules: phases, each with its own model, precision and sampler.",
        no_args_is_help=True,
        epilog=f"Plugins add commands: {', '.join(OF_PLUGINS)}; 'gatekit plugins' lists yours.",
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # rich would cost a third of the time that help takes
    )

    @app.callback()
    def root(  # pyright: ignore[reportUnusedFunction]
        version: Annotated[
            bool,
            typer.Option(
                "--version", callback=show_version, is_eager=True, help="Show the version."
            ),
        ] = False,
        debug: Annotated[
            bool, typer.Option("--debug", help="Show the traceback of an error.")
        ] = False,
        limit: Annotated[
            str | None,
            typer.Option(
                "--plugins",
                metavar="none|A,B",
                help="Load of the installed plugins only these, beside gatekit's own.",
            ),
        ] = None,
        allow_outside: Annotated[
            bool,
            typer.Option(
                "--allow-outside",
                help="Let schedules name files outside their folder and the model folders.",
            ),
        ] = False,
    ) -> None:
        pass

    for name, command in COMMANDS.items():
        app.command(name)(command)
    return app
