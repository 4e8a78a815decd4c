"""The judge: whether a video shows everything that its caption says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from gatekit_tinywan.world.attributes import Codes, Scene, encode
from gatekit_tinywan.world.judge_measure import Reading, measure
from gatekit_tinywan.world.layout import SceneBatch

_EXTRA = 25.0  # area that may be neither thing nor background; a dot has 23


@dataclass(frozen=True)
class Verdict:
    """What is as the caption says: bool [n], or [n, 2] for each thing."""

    background: torch.Tensor
    colour: torch.Tensor
    shape: torch.Tensor
    size: torch.Tensor
    direction: torch.Tensor
    speed: torch.Tensor
    mark: torch.Tensor
    relation: torch.Tensor
    no_extra: torch.Tensor

    @property
    def all_right(self) -> torch.Tensor:
        """Whether everything is right, bool [n]."""
        columns = [getattr(self, f.name).reshape(len(self.background), -1) for f in fields(self)]
        return torch.cat(columns, dim=1).all(dim=1)

    def rates(self) -> dict[str, float]:
        """Share of clips in which each attribute, and everything, is right."""
        rows = {f.name: getattr(self, f.name) for f in fields(self)}
        rates = {k: v.reshape(len(v), -1).all(dim=1) for k, v in rows.items()}
        rates["all_right"] = self.all_right
        return {k: v.float().mean().item() for k, v in rates.items()}


def judge(
    video: torch.Tensor, attributes: SceneBatch | Codes | Sequence[Scene], chunk: int | None = None
) -> Verdict:
    """Judges each video against its caption's attributes.

    Args:
        video: RGB in [0, 1], [n, 3, T, H, W], at least 9 frames; other sizes than 96 x 96 are
            resampled.
        attributes: what each is asked to show.
        chunk: how many videos are measured at once; as suits the device without it.

    Raises:
        ValueError: the numbers of videos and of attributes differ, or the shape is no video's.
    """
    if isinstance(attributes, SceneBatch):
        codes = attributes.codes
    else:
        codes = attributes if isinstance(attributes, Codes) else encode(attributes)
    if video.dim() != 5 or video.shape[1] != 3 or len(codes) != len(video):
        raise ValueError(
            f"video of shape {tuple(video.shape)} for {len(codes)} captions; "
            "give [n, 3, T, H, W] with one caption each"
        )
    codes = codes.to(video.device)
    # On a processor a few videos fit its cache; an accelerator wants many.
    chunk = chunk or (4 if video.device.type == "cpu" else 64)
    starts = range(0, max(len(codes), 1), chunk)
    parts = [
        compare(measure(video[i : i + chunk], codes.colour[i : i + chunk]), codes[i : i + chunk])
        for i in starts
    ]
    return Verdict(
        **{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Verdict)}
    )


def compare(reading: Reading, codes: Codes) -> Verdict:
    """Compares what was measured with what was asked for, both of n clips."""
    there, both = reading.found, reading.found.all(dim=1)
    return Verdict(
        background=reading.background == codes.background,
        colour=there,
        shape=(reading.shape == codes.shape[..., None]).all(-1) & there,
        size=(reading.size == codes.size[..., None]).all(-1) & there,
        direction=(reading.direction == codes.direction) & there,
        speed=(reading.speed == codes.speed) & there,
        mark=(reading.mark == codes.mark[..., None]).all(-1) & there,
        relation=(reading.relation == codes.relation) & both,
        no_extra=reading.extra < _EXTRA,
    )
