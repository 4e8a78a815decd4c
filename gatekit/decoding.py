"""Decoding a saved latent: with the schedule that made it, another, or a VAE alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.device import check_device, check_name, default_device
from gatekit.embed import Carried
from gatekit.errors import InputError, WeightsError
from gatekit.family import Components, ComponentSpec, ModelFamily, VideoSpec
from gatekit.identity import sha256
from gatekit.latent import SavedLatent, decode_latent, read_latent
from gatekit.load import Option, load_schedule, of_carried
from gatekit.lookup import missing_error
from gatekit.registry import registry
from gatekit.resolver import resolve
from gatekit.schedule import Schedule
from gatekit.target import Target

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Decoder:
    """What decodes a latent.

    Attributes:
        family: Holds the VAE.
        video: What comes out.
        device: Where it runs.
        carried: What the result is to carry; None where nothing is known of the latent.
    """

    family: ModelFamily
    video: VideoSpec
    device: str
    carried: Carried | None


def decode(
    latent: str | Path,
    out: str | Path,
    *,
    schedule: str | Path | None = None,
    vae: str | Path | None = None,
    fps: float | None = None,
    models_dir: str | Path | Sequence[str | Path] | None = None,
    device: str | None = None,
) -> Path:
    """Decode a saved latent and write it.

    The schedule is the one given, else the one in the latent's metadata, else that of
    ``run.json`` beside it. Without any, ``vae`` alone decodes, as the family that knows the file.

    Args:
        latent: A run folder's ``latent.safetensors``, or what ``out="x.safetensors"`` wrote.
        out: As in ``run``, but no latent.
        schedule: A schedule, or a result that carries one.
        vae: Takes the place of the schedule's ``vae.file``.
        fps: Takes the place of the schedule's ``video.fps``.
        models_dir: Folder or folders of weight files.
        device: Takes the place of the schedule's ``device``.

    Returns:
        What was written.

    Raises:
        InputError: No latent, or one of another size than the schedule's.
        WeightsError: A VAE that is missing, or of another model.
        OutputError: The result could not be written.
    """
    target = Target.of(out)
    if target.kind == "latent":
        raise InputError(
            "this would be a latent again", where=str(out), remedy="name a video, such as out.mp4"
        )
    saved = read_latent(Path(latent))
    known = _known(saved, Path(latent), schedule, vae, fps)
    if known is None:
        decoder = _alone(saved.latent, Path(vae) if vae else None, fps, device, str(latent))
    else:
        decoder = _planned(saved.latent, *known, vae, models_dir, device)
    target.check_place().check(decoder.video.frames)
    check_device(decoder.device, remedy="choose another one: --device cpu")
    part = decoder.family.components.vae
    if part is not None and part.device is not None:
        remedy = "name another in a schedule that you give with --schedule"
        check_device(part.device, "vae.device", remedy)
    carried = decoder.carried.dump() if decoder.carried is not None else ""
    return target.write(decode_latent(decoder, saved.latent), decoder.video.fps, carried)


def _known(
    saved: SavedLatent,
    where: Path,
    given: str | Path | None,
    vae: str | Path | None,
    fps: float | None,
) -> tuple[Schedule, Carried | None] | None:
    """The schedule to decode by, and what the result is to carry of it; None if there is none."""
    changes: list[str | Option] = []
    if fps is not None:
        changes.append(Option("--fps", "video.fps", str(fps)))
    if vae is not None:
        changes.append(Option("--vae", "vae.file", json.dumps(Path(vae).name)))
    if given is not None:
        return load_schedule(given, changes), None
    if saved.carried is None:
        return None
    schedule = of_carried(saved.carried, where, changes)
    return schedule, replace(saved.carried, schedule=json.dumps(schedule.to_dict()))


def _planned(
    latent: Tensor,
    schedule: Schedule,
    carried: Carried | None,
    vae: str | Path | None,
    models_dir: str | Path | Sequence[str | Path] | None,
    device: str | None,
) -> Decoder:
    plan = resolve(schedule, models_dir=models_dir, device=device)
    family = plan.family
    spec: ComponentSpec | None = family.components.vae
    if vae is not None:
        spec = replace(spec or ComponentSpec(None), file=_existing(Path(vae)))
        family.components = replace(family.components, vae=spec)
    if spec is not None and spec.file is None:
        wanted = schedule.vae.file if schedule.vae else ""
        raise missing_error([m for m in plan.missing if m.name == wanted][:1])
    if spec is not None and spec.file is not None and carried is not None:
        files = family.component_files().get("vae", ())
        weights = {**carried.weights, **{file.name: sha256(file) for file in files}}
        carried = replace(carried, weights=weights)
    shape = family.latent_shape(plan.video)
    if tuple(latent.shape) != tuple(shape):
        raise InputError(
            f"the schedule's latent is {list(shape)}",
            value=list(latent.shape),
            remedy="give the schedule that made this latent with --schedule",
        )
    return Decoder(family, plan.video, plan.device, carried)


def _alone(
    latent: Tensor, vae: Path | None, fps: float | None, device: str | None, where: str
) -> Decoder:
    """A VAE alone, as the first family that knows the file."""
    if vae is None:
        raise InputError(
            "nothing tells how this latent was made",
            where=where,
            remedy="name the VAE with --vae, or the schedule with --schedule",
        )
    file = _existing(vae)
    device = device or default_device()
    check_name(device, "--device")
    for cls in registry().families.values():
        if "vae" not in cls.component_facts(file):
            continue
        family: Any = cls(cls.Params(), Components(vae=ComponentSpec(file)))
        rate = fps or float(family.default_video().get("fps", 16))
        return Decoder(family, family.video_of(tuple(latent.shape), rate), device, None)
    raise WeightsError(
        "no installed family knows this file as a VAE",
        where=str(file),
        remedy="'gatekit inspect FILE' says what it is",
    )


def _existing(file: Path) -> Path:
    if not file.exists():
        raise WeightsError("no such VAE", where=str(file), remedy="check the path")
    return file.absolute()
