"""``gatekit profile``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

import gatekit
from gatekit_research.files import write_text
from gatekit_research.inputs import read_prompts
from gatekit_research.plotting import can_plot, check_plot
from gatekit_research.profile.candidates import prepare
from gatekit_research.profile.document import is_profile


class SpacedOptions(typer.core.TyperCommand):
    """``--variants a b c``: an option whose values go on to the next option."""

    spaced = ("--variants",)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Say the option again before each further value."""
        spelled: list[str] = []
        current = ""
        for word in args:
            if word.startswith("-"):
                current = word if word in self.spaced else ""
                if not current:
                    spelled.append(word)
            else:
                spelled += [current, word] if current else [word]
        return super().parse_args(ctx, spelled)


def profile(
    schedule: Annotated[Path, typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml).")],
    variants: Annotated[
        list[str],
        typer.Option("--variants", metavar="VARIANT...", help="Weight files, or variants' names."),
    ],
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference",
            metavar="VARIANT",
            help="What others are compared with; default: the schedule's own.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="One prompt a line; default: four general ones."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of each prompt.")] = 1,
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT.json",
            help="The profile to write; default: SCHEDULE.profile.json.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Its plot; default: OUT.png.")
    ] = None,
    overrides: gatekit.SetOption = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile itself.")] = False,
) -> None:
    """Measure how far variants' predictions are from the schedule's own, by sigma.

    The same command goes on where it was stopped: states and results are kept in OUT.work.
    """
    lines = read_prompts(prompts)
    out = out or Path(f"{schedule.stem}.profile.json")
    gatekit.check_out(out)
    if out.suffix != ".json":  # states and the plot take the same name with other endings
        raise gatekit.InputError(
            "a profile's name ends in .json",
            where="-o",
            value=str(out),
            remedy=f"name it {out.with_suffix('.json').name}",
        )
    if out.exists() and not is_profile(out):
        raise gatekit.InputError(
            "this file exists and is no profile", where="-o", value=str(out), remedy="name another"
        )
    if plot is not None:
        check_plot(plot)
        gatekit.check_out(plot, "--plot")
    bench = prepare(
        schedule,
        variants,
        reference or (),
        overrides=overrides or (),
        models_dir=models_dir,
        device=device,
    )
    from gatekit_research.profile.run import Profiling
    from gatekit_research.profile.show import show
    from gatekit_research.profile.work import Work

    work = Work(out.with_suffix(".work"))
    job = Profiling(bench, lines, range(seeds), work, schedule, image)
    try:
        made = job.make()
    except KeyboardInterrupt:
        raise gatekit.Cancelled(
            f"interrupted; the same command goes on, from {work.folder}"
        ) from None
    write_text(out, made.model_dump_json(indent=1) + "\n")
    picture = plot or out.with_suffix(".png")
    if plot is not None or can_plot():
        from gatekit_research.profile.picture import draw_profile

        draw_profile(made, picture)
        print(f"wrote {picture}", file=sys.stderr)
    if as_json:
        print(made.model_dump_json(indent=1))
        return
    show(made)
    print(out)


profile.cls = SpacedOptions  # pyright: ignore[reportFunctionMemberAccess]
