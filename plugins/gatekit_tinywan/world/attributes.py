"""What a clip can be asked to show: the closed sets of attributes, as words and as codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from gatekit_tinywan.world.hashing import mix

BACKGROUNDS = ("dark", "grey", "light")
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")  # 60 degrees of hue apart
SHAPES = ("circle", "square", "triangle", "cross")
SIZES = ("small", "large")
DIRECTIONS = ("left", "right", "up", "down")
SPEEDS = ("slowly", "quickly")
RELATIONS = ("in front of", "behind", "apart")  # of the first thing to the second
MARKS = ("none", "white dot", "white bar", "black dot", "black bar")

# Unit vectors of DIRECTIONS; y grows downwards, as in a picture.
HEADINGS = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
APART = RELATIONS.index("apart")


@dataclass(frozen=True)
class Thing:
    """One of the two moving things, in words."""

    colour: str
    shape: str
    size: str
    direction: str
    speed: str
    mark: str = "none"


@dataclass(frozen=True)
class Scene:
    """Everything a caption states, in words: `first` is named first."""

    background: str
    first: Thing
    second: Thing
    relation: str


@dataclass(frozen=True)
class Codes:
    """Attributes of n clips as int64 positions in the word lists; things on the second axis."""

    background: torch.Tensor  # [n]
    colour: torch.Tensor  # [n, 2]
    shape: torch.Tensor  # [n, 2]
    size: torch.Tensor  # [n, 2]
    direction: torch.Tensor  # [n, 2]
    speed: torch.Tensor  # [n, 2]
    mark: torch.Tensor  # [n, 2]
    relation: torch.Tensor  # [n]

    def __len__(self) -> int:
        return self.background.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor) -> Codes:
        """The chosen rows, as another batch."""
        return Codes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device | str) -> Codes:
        """The same codes on another device."""
        return Codes(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def scenes(self) -> list[Scene]:
        """The attributes of every clip, in words."""
        background, relation = self.background.tolist(), self.relation.tolist()
        columns = zip(*(getattr(self, name).tolist() for name in THING_WORDS), strict=True)
        result: list[Scene] = []
        for i, values in enumerate(columns):
            words = tuple(THING_WORDS.values())
            things = [
                Thing(*(words[j][pair[k]] for j, pair in enumerate(values))) for k in range(2)
            ]
            result.append(
                Scene(BACKGROUNDS[background[i]], things[0], things[1], RELATIONS[relation[i]])
            )
        return result


THING_WORDS: dict[str, tuple[str, ...]] = {
    "colour": COLOURS,
    "shape": SHAPES,
    "size": SIZES,
    "direction": DIRECTIONS,
    "speed": SPEEDS,
    "mark": MARKS,
}


def encode(scenes: Sequence[Scene]) -> Codes:
    """The codes of scenes given in words.

    Raises:
        ValueError: a word is not in its list.
    """
    things = {
        name: torch.tensor(
            [[words.index(getattr(thing, name)) for thing in (s.first, s.second)] for s in scenes],
            dtype=torch.int64,
        ).reshape(-1, 2)
        for name, words in THING_WORDS.items()
    }
    background = torch.tensor([BACKGROUNDS.index(s.background) for s in scenes], dtype=torch.int64)
    relation = torch.tensor([RELATIONS.index(s.relation) for s in scenes], dtype=torch.int64)
    return Codes(background=background, relation=relation, **things)


def combination(codes: Codes) -> np.ndarray:
    """One number for the full combination of attributes, uint64 [n]."""
    radices = {f.name: len(THING_WORDS.get(f.name, ())) or 3 for f in fields(codes)}
    number = np.zeros(len(codes), dtype=np.uint64)
    for name, radix in radices.items():
        for column in getattr(codes, name).reshape(len(codes), -1).T.cpu().numpy():
            number = number * np.uint64(radix) + column.astype(np.uint64)
    return number


def is_held_out(codes: Codes) -> np.ndarray:
    """Whether a combination is kept for evaluation: one in sixteen, by hash, bool [n]."""
    return mix(combination(codes) + np.uint64(0x5EED)) % np.uint64(16) == 0
