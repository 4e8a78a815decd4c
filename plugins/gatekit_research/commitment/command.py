"""``gatekit commitment``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

import gatekit
from gatekit_research.files import write_json
from gatekit_research.inputs import Prompt, read_prompts
from gatekit_research.plotting import check_plot


def commitment(
    schedule: Annotated[Path, typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml).")],
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="What to show.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="One prompt a line; default: four general ones."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of each prompt.")] = 1,
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    edges: Annotated[
        tuple[float, float], typer.Option("--edges", help="Frequencies between the bands.")
    ] = (0.25, 0.5),
    settled: Annotated[
        float, typer.Option("--settled", help="Commitment from which on a band is settled.")
    ] = 0.5,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT.json", help="JSON of every run; default: none."),
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Plot.")] = None,
    overrides: gatekit.SetOption = None,
    models_dir: gatekit.ModelsDirOption = None,
    device: gatekit.DeviceOption = None,
    as_json: gatekit.JsonOption = False,
) -> None:
    """Watch when coarse, middle and fine bands of a run's prediction settle."""
    from gatekit_research.commitment.run import watch
    from gatekit_research.commitment.show import show
    from gatekit_research.profile.candidates import check_steps

    if not 0.0 < edges[0] < edges[1]:
        raise gatekit.InputError(
            "edges rise, and are above 0", where="--edges", value=list(edges), remedy="0.25 0.5"
        )
    if not 0.0 < settled < 1.0:
        raise gatekit.InputError(
            "a band is settled at a commitment within 0 and 1",
            where="--settled",
            value=settled,
            remedy="0.5 is half of it",
        )
    if plot is not None:
        check_plot(plot)
        gatekit.check_out(plot, "--plot")
    if out is not None:
        gatekit.check_out(out)
    if prompt is not None and prompts is not None:
        raise gatekit.InputError(
            "a prompt and a file of prompts", where="--prompts", remedy="give one of the two"
        )
    lines = (Prompt(prompt),) if prompt is not None else read_prompts(prompts)
    given = [line.inputs(seed, image) for line in lines for seed in range(seeds)]
    loaded = gatekit.load_schedule(schedule, overrides)
    plan = gatekit.resolve(loaded, models_dir=models_dir, device=device, require_files=True)
    check_steps(plan)
    for one in given:
        plan.family.check_inputs(one)
    with gatekit.Countdown(len(given) * len(plan.table())) as bar:
        bar.doing("watching")
        found = watch(plan, given, edges, settled, bar.advance)
    if out is not None:
        write_json(out, found.to_json())
    if plot is not None:
        from gatekit_research.commitment.picture import draw_commitment

        draw_commitment(found, plot)
        print(f"wrote {plot}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
        return
    show(found)
    if out is not None:
        print(out)
