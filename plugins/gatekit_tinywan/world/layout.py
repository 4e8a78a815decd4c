"""Sampling of scenes: attributes first, then places and paths that show what the caption says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from gatekit_tinywan.world.attributes import (
    APART,
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    HEADINGS,
    SHAPES,
    Codes,
    Scene,
    is_held_out,
)
from gatekit_tinywan.world.captions import caption, caption_rng
from gatekit_tinywan.world.hashing import uniforms
from gatekit_tinywan.world.overlap import GAP, RADII, overlap_fraction
from gatekit_tinywan.world.shapes import REACH

Split = Literal["train", "held_out"]

TRAIN_SEED = 20_260_101
HELD_OUT_SEED = 20_260_202

SIDE = 96.0  # lengths are pixels of a 96 x 96 picture, times are frames of a 25-frame clip
LAST = 24.0
SPEEDS_PX = (1.0, 2.3)
LEVELS = (0.12, 0.45, 0.82)
SATURATION, VALUE = 0.85, 0.92

_MARGIN = 0.5  # shapes may be this close to the picture's edge
_STREAMS = 64  # streams of a round: attributes, then one for each try at a layout
_TRIES = 12
_ROUNDS = 2000
_APPEARANCE = 1 << 40


@dataclass(frozen=True)
class SceneBatch:
    """n scenes: what their captions say (`codes`) and how it is laid out.

    Lengths are in pixels of a 96 x 96 picture and times in frames of a 25-frame clip, whatever
    the size of the rendered video.
    """

    seed: int
    index: torch.Tensor  # [n] int64
    codes: Codes
    centre: torch.Tensor  # [n, 2 things, (x, y)] in the middle frame
    velocity: torch.Tensor  # [n, 2, (x, y)] pixels a frame
    radius: torch.Tensor  # [n, 2] of the disc of equal area
    rgb: torch.Tensor  # [n, 2, 3]
    level: torch.Tensor  # [n] grey of the background
    gradient: torch.Tensor  # [n, (x, y)] change of the level across the picture
    waves: torch.Tensor  # [n, 3, (cycles across x, across y, phase, amplitude)]

    def __len__(self) -> int:
        return self.index.shape[0]

    def _map(self, change: Callable[[Any], Any]) -> SceneBatch:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return SceneBatch(**{k: v if k == "seed" else change(v) for k, v in values.items()})

    def __getitem__(self, rows: slice | torch.Tensor) -> SceneBatch:
        """The chosen rows, as another batch."""
        return self._map(lambda v: v[rows])

    def to(self, device: torch.device | str) -> SceneBatch:
        """The same scenes on another device."""
        return self._map(lambda v: v.to(device))

    def attributes(self, i: int) -> Scene:
        """What scene i shows, in words."""
        return self.codes[i : i + 1].scenes()[0]

    def captions(self, vary: bool = False) -> list[str]:
        """A caption for each scene; `vary` draws wording, the same for the same seed and index."""
        scenes = self.codes.scenes()
        if not vary:
            return [caption(s) for s in scenes]
        index = self.index.tolist()
        return [caption(s, caption_rng(self.seed, i)) for s, i in zip(scenes, index, strict=True)]


def sample_scenes(
    seed: int, indices: Sequence[int] | range | np.ndarray, split: Split = "train"
) -> SceneBatch:
    """Draws scenes; scene i of a seed is the same whatever else is in the batch.

    Args:
        seed: any integer, usually TRAIN_SEED or HELD_OUT_SEED.
        indices: which clips of the seed's endless list.
        split: "train" never shows a combination of attributes that "held_out" shows.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f"split: unknown value {split!r}; use 'train' or 'held_out'")
    index = np.asarray(indices, dtype=np.int64).reshape(-1)
    n = len(index)
    found: dict[str, np.ndarray] = {}
    pending = np.arange(n)
    for round_ in range(_ROUNDS):
        if not len(pending):
            break
        stream = round_ * _STREAMS
        # A combination that leaves no room for what it says is drawn anew, as is one of the
        # other split, so every round begins with fresh attributes.
        table = _draw_attributes(uniforms(seed, index[pending], stream, 14))
        keep = is_held_out(_codes(table)) == (split == "held_out")
        rows, table = pending[keep], {k: v[keep] for k, v in table.items()}
        placed = np.zeros(n, dtype=bool)
        for attempt in range(_TRIES):
            if not len(rows):
                break
            layout, good = _place(table, uniforms(seed, index[rows], stream + 1 + attempt, 11))
            for name, values in {**table, **layout}.items():
                store = found.setdefault(name, np.zeros((n, *values.shape[1:]), values.dtype))
                store[rows[good]] = values[good]
            placed[rows[good]] = True
            rows, table = rows[~good], {k: v[~good] for k, v in table.items()}
        pending = pending[~placed[pending]]
    else:
        raise RuntimeError(f"seed {seed}: no layout for {len(pending)} clips")
    if not n:
        found = _draw_attributes(np.zeros((0, 14)))
        found |= _place(found, np.zeros((0, 11)))[0]
    look = _appearance(found, uniforms(seed, index, _APPEARANCE, 21))
    continuous = {k: found[k] for k in ("centre", "velocity", "radius")} | look
    return SceneBatch(
        seed=seed,
        index=torch.from_numpy(index),
        codes=_codes(found),
        **{k: torch.from_numpy(v.astype(np.float32)) for k, v in continuous.items()},
    )


def _codes(table: dict[str, np.ndarray]) -> Codes:
    names = [f.name for f in dataclasses.fields(Codes)]
    return Codes(**{name: torch.from_numpy(table[name]) for name in names})


def _draw_attributes(u: np.ndarray) -> dict[str, np.ndarray]:
    """Codes from uniform numbers [n, 14]; the shares of relations and marks are set here."""

    def pick(columns: slice, count: int) -> np.ndarray:
        return (u[:, columns] * count).astype(np.int64)

    first = pick(slice(1, 2), 6)
    other = (first + 1 + pick(slice(2, 3), 5)) % 6
    # Whose mark: the first thing's, the second's, or nobody's in one clip of five.
    bearer, kind = np.searchsorted([0.4, 0.8], u[:, 12], side="right"), 1 + pick(slice(13, 14), 4)
    return {
        "background": pick(slice(0, 1), 3)[:, 0],
        "colour": np.concatenate([first, other], axis=1),
        "shape": pick(slice(3, 5), len(SHAPES)),
        "size": pick(slice(5, 7), 2),
        "direction": pick(slice(7, 9), len(DIRECTIONS)),
        "speed": pick(slice(9, 11), 2),
        "relation": np.searchsorted([0.38, 0.76], u[:, 11], side="right").astype(np.int64),
        "mark": np.where(bearer[:, None] == np.arange(2), kind, 0),
    }


def _place(table: dict[str, np.ndarray], u: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One try at places and paths; returns them and whether they show what is asked, [n]."""
    jitter = 1 + 0.08 * (u[:, 7:11] - 0.5)
    radius = np.asarray(RADII)[table["size"]] * jitter[:, :2]
    pace = np.asarray(SPEEDS_PX)[table["speed"]] * jitter[:, 2:]
    velocity = np.asarray(HEADINGS)[table["direction"]] * pace[..., None]

    # Where a centre may be in the middle frame, so that the whole path lies in the picture.
    side, up, down = np.moveaxis(np.asarray(REACH)[table["shape"]] * radius[..., None], -1, 0)
    travel = np.abs(velocity) * (LAST / 2)
    low = np.stack([side, up], axis=-1) + travel + _MARGIN
    high = SIDE - np.stack([side, down], axis=-1) - travel - _MARGIN

    apart = table["relation"] == APART
    # Things that meet are within `offset` of each other at the time `meeting`, counted from the
    # middle; later the slower they close in, so that the first frame shows both.
    drift = velocity[:, 1] - velocity[:, 0]
    slow = np.linalg.norm(drift, axis=-1) < 1.7
    meeting = np.where(slow, 2 + 7 * u[:, 0], -3 + 8 * u[:, 0])
    reach = 0.6 * radius.min(axis=1) * np.sqrt(u[:, 1])
    angle = 2 * np.pi * u[:, 2]
    offset = reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    offset -= drift * meeting[:, None]
    near_low = np.where(apart[:, None], low[:, 0], np.maximum(low[:, 0], low[:, 1] - offset))
    near_high = np.where(apart[:, None], high[:, 0], np.minimum(high[:, 0], high[:, 1] - offset))
    centre = near_low + (near_high - near_low) * u[:, 3:5]
    free = low[:, 1] + (high[:, 1] - low[:, 1]) * u[:, 5:7]
    other = np.where(apart[:, None], free, centre + offset)

    between = other[:, None] - centre[:, None]
    time = np.arange(LAST + 1) - LAST / 2
    between = between + drift[:, None] * time[:, None]
    overlap = overlap_fraction(table["shape"], table["size"], between)
    widened = overlap_fraction(table["shape"], table["size"], between, GAP)
    # The clear frames may lie before or after; the first frame shows both things, and in the
    # last neither is hidden, or nothing would be seen to pass.
    meets = (overlap > 0.38).sum(axis=1) >= 3
    clear = (overlap < 0.02).sum(axis=1) >= 8
    clear &= (overlap[:, 0] < 0.1) & (overlap[:, -1] < 0.6)
    good = np.where(apart, (widened < 0.002).all(axis=1), meets & clear)
    good &= (near_low <= near_high).all(axis=1) & (low <= high).all(axis=(1, 2))
    layout = {
        "centre": np.stack([centre, other], axis=1),
        "velocity": velocity,
        "radius": radius,
    }
    return layout, good


def _appearance(table: dict[str, np.ndarray], u: np.ndarray) -> dict[str, np.ndarray]:
    """Colours and background, jittered so little that no word changes its meaning."""
    centred = u - 0.5
    hue = table["colour"] / len(COLOURS) + centred[:, 0:2] * (10 / 360)
    saturation, value = SATURATION + 0.06 * centred[:, 2:4], VALUE + 0.08 * centred[:, 4:6]
    assert len(LEVELS) == len(BACKGROUNDS)
    waves = np.stack(
        [
            np.rint(4 * centred[:, 9:12]),
            np.rint(4 * centred[:, 12:15]),
            2 * np.pi * u[:, 15:18],
            0.004 + 0.006 * u[:, 18:21],
        ],
        axis=-1,
    )
    return {
        "rgb": _hsv(hue % 1.0, saturation, value),
        "level": np.asarray(LEVELS)[table["background"]] + 0.03 * centred[:, 6],
        "gradient": 0.10 * centred[:, 7:9],
        "waves": waves,
    }


def _hsv(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> np.ndarray:
    """RGB of HSV, elementwise."""
    shift = (np.asarray([5, 3, 1]) + hue[..., None] * 6) % 6
    ramp = np.clip(np.minimum(shift, 4 - shift), 0, 1)
    return value[..., None] * (1 - saturation[..., None] * ramp)
