"""Latents in safetensors files: written with what they came from, read back, decoded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gatekit.embed import KEY, Carried, read_embedded
from gatekit.errors import InputError, ScheduleError
from gatekit.jsontext import read_json
from gatekit.provenance import by_name
from gatekit.safeheader import read_header

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import ModelFamily, VideoSpec

NAME = "latent"
RECORD = "run.json"
LARGEST = 1 << 32  # values; far more than any video's latent


def latent_bytes(latent: Tensor, comment: str | None = None) -> bytes:
    """``latent`` float32 ``[C, T, H, W]`` as the bytes of a safetensors file.

    One key of metadata only: the order of several is not fixed, so equal latents would not give
    equal bytes.
    """
    from safetensors.torch import save

    metadata = {KEY: comment} if comment is not None else {"format": "gatekit-latent-1"}
    return save({NAME: latent.detach().float().cpu().contiguous()}, metadata=metadata)


class Decoding(Protocol):
    """What decodes: a plan, or a family alone with the size of the video."""

    @property
    def family(self) -> ModelFamily:
        """Holds the VAE."""
        ...

    @property
    def video(self) -> VideoSpec:
        """What comes out."""
        ...

    @property
    def device(self) -> str:
        """Where it runs."""
        ...


def decode_latent(by: Decoding, latent: Tensor) -> Tensor:
    """Latent ``[C, T, H, W]`` -> float32 ``[frames, height, width, 3]`` in [0, 1], on the CPU."""
    return by.family.decode(latent.to(by.device), by.video, by.device).float().cpu()


@dataclass(frozen=True)
class SavedLatent:
    """A latent from a file.

    Attributes:
        latent: float32 ``[C, T, H, W]``.
        carried: What it came from: its metadata tell, or ``run.json`` beside it; else None.
    """

    latent: Tensor
    carried: Carried | None


def is_latent(path: Path) -> bool:
    """Whether a file holds a latent and nothing else, by its header alone; imports no torch."""
    if not path.is_file():
        return False
    try:
        return read_header(path).keys() - {"__metadata__"} == {NAME}
    except (OSError, ValueError):
        return False


def read_latent(path: Path) -> SavedLatent:
    """Read a latent, and what is known of it.

    Raises:
        InputError: No such file, or no latent in it.
    """
    import safetensors

    safe_open: Any = safetensors.safe_open  # pyright: ignore[reportUnknownMemberType]
    remedy = "give a run folder's latent.safetensors, or a file that -o OUT.safetensors wrote"
    if not path.is_file():
        raise InputError("no such latent", where=str(path), remedy=remedy)
    try:
        read_header(path)  # of bounded length, before the package reads it
        with safe_open(path, framework="pt") as opened:
            if NAME not in opened.keys():  # noqa: SIM118
                raise InputError("no latent in this file", where=str(path), remedy=remedy)
            shape = opened.get_slice(NAME).get_shape()
            values = 1
            for size in shape:
                values *= size
            if len(shape) != 4 or not 0 < values <= LARGEST:
                raise InputError(
                    "a latent is [C, T, H, W]", where=str(path), value=list(shape), remedy=remedy
                )
            latent: Tensor = opened.get_tensor(NAME).float()
    except (OSError, ValueError, safetensors.SafetensorError) as exc:
        raise InputError("no readable safetensors file", where=str(path), remedy=remedy) from exc
    if not bool(latent.isfinite().all()):
        raise InputError("NaN or infinity in the latent", where=str(path), remedy=remedy)
    return SavedLatent(latent, _carried(path))


def _carried(path: Path) -> Carried | None:
    try:
        return read_embedded(path)
    except ScheduleError:
        pass
    try:
        record = read_json(path.parent / RECORD)
        weights = by_name(record.get("weights", {}))
        folder = Path(record["folder"]) if record.get("folder") else None
        return Carried(json.dumps(record["schedule"]), record["inputs"], weights, folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
