"""``gatekit run``: a video from a schedule, from a video's own metadata, or a run resumed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gatekit.cli.options import DeviceOption, ModelsDirOption, SetOption

if TYPE_CHECKING:
    from gatekit.family import Inputs
    from gatekit.load import Option
    from gatekit.schedule import Schedule
    from gatekit.target import Target


def run(
    schedule: Annotated[
        Path | None,
        typer.Argument(metavar="SCHEDULE", help="A schedule (.yaml), or a result to make again."),
    ] = None,
    prompt: Annotated[str | None, typer.Option("-p", "--prompt", help="What to show.")] = None,
    negative: Annotated[
        str | None,
        typer.Option("-n", "--negative", help="What to steer away from; default: the family's."),
    ] = None,
    image: Annotated[Path | None, typer.Option("-i", "--image", help="First frame.")] = None,
    last_image: Annotated[Path | None, typer.Option("--last-image", help="Last frame.")] = None,
    video: Annotated[
        Path | None, typer.Option("--video", metavar="FILE", help="Video to start from.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            metavar="SIGMA",
            help="Where on the path it starts: 0.7, or '{step: 8}'; short for --set start=...",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="OUT.mp4, OUT.webp, OUT.png, OUT/ (frames), OUT.safetensors (latent); "
            "default: NAME-seedN.mp4.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Seed of every noise draw; default: 0, or the repeated run's."),
    ] = None,
    overrides: SetOption = None,
    models_dir: ModelsDirOption = None,
    device: DeviceOption = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", metavar="DIR", help="Run folder; default: OUT.run.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN_DIR", help="Go on with a stopped run.")
    ] = None,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Resume with another schedule, other weights or versions all the same."
        ),
    ] = False,
) -> None:
    """Make a video."""
    from gatekit.cli.session import Session
    from gatekit.load import Option
    from gatekit.resolver import resolve

    changes: list[str | Option] = [*(overrides or [])]
    if start is not None:
        changes.append(Option("--start", "start", start))
    job = _job(schedule, resume, changes)
    given = {
        "prompt": prompt,
        "negative_prompt": negative,
        "image": image,
        "last_image": last_image,
        "seed": seed,
        "video": video,
    }
    inputs = _inputs(given, job.inputs)
    plan = resolve(
        job.schedule, models_dir=models_dir, device=device or job.device, require_files=True
    )
    target = _target(out or job.out, job.schedule.name, inputs.seed)
    places = tuple(models_dir or ())
    Session(plan, inputs, target, run_dir, resume, job.weights, force, places).run()


@dataclass(frozen=True)
class _Job:
    """What to run, and what an earlier run says of its inputs."""

    schedule: Schedule
    inputs: dict[str, Any] | None = None
    out: str | None = None
    device: str | None = None
    weights: dict[str, str] | None = None


def _job(schedule: Path | None, resume: Path | None, overrides: list[str | Option]) -> _Job:
    from gatekit.embed import carries, read_embedded
    from gatekit.errors import InputError
    from gatekit.load import load_schedule, overridden

    if resume is not None:
        from gatekit.runfolder import open_run_folder

        content = open_run_folder(resume).content
        folder = Path(content["folder"]) if content.get("folder") else None
        if schedule is not None:
            loaded = load_schedule(schedule, overrides)
        else:
            loaded = overridden(content["schedule"], overrides, folder)
        return _Job(loaded, content["inputs"], content.get("out"), content.get("device"))
    if schedule is None:
        raise InputError("a schedule is missing", remedy="gatekit run SCHEDULE -p PROMPT")
    loaded = load_schedule(schedule, overrides)
    if carries(schedule):
        carried = read_embedded(schedule)
        return _Job(loaded, dict(carried.inputs), weights=dict(carried.weights))
    return _Job(loaded)


def _inputs(given: dict[str, Any], earlier: dict[str, Any] | None) -> Inputs:
    """The inputs: those given, else those of the earlier run."""
    from gatekit.errors import InputError
    from gatekit.family import Inputs
    from gatekit.provenance import image_record, inputs_from

    if earlier is None and given["prompt"] is None:
        raise InputError("a prompt is missing", where="-p", remedy='add -p "what to show"')
    for name, option in (("prompt", "-p"), ("negative_prompt", "-n")):
        if any("\ud800" <= letter <= "\udfff" for letter in given[name] or ""):
            raise InputError("this is no text in UTF-8", where=option, remedy="write it in UTF-8")
    base = inputs_from(earlier or {})
    for name in ("image", "last_image", "video"):
        what = name.replace("_", " ")
        record = (earlier or {}).get(name)
        if record and not record.get("file") and given[name] is None:
            raise InputError(
                f"the {what} of the earlier run was no file",
                where=f"--{name.replace('_', '-')}",
                remedy=f"give the {what} again",
            )
        if record and given[name] is None and image_record(record["file"]) != record:
            raise InputError(
                f"the {what} of the earlier run is gone or has changed",
                where=f"--{name.replace('_', '-')}",
                value=record["file"],
                remedy=f"give the {what} again",
            )
    return Inputs(
        **{name: getattr(base, name) if value is None else value for name, value in given.items()}
    )


def _target(out: str | None, name: str, seed: int) -> Target:
    from gatekit.output import free_name
    from gatekit.target import Target

    if out is None:
        safe = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "video"
        out = str(free_name(Path(f"{safe}-seed{seed}.mp4")))
    return Target.of(out)
