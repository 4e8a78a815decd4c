"""Captions: one canonical wording that parses back, and varied wordings for training."""

from __future__ import annotations

import random
import re

from gatekit_tinywan.world.attributes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MARKS,
    SHAPES,
    SIZES,
    SPEEDS,
    Scene,
    Thing,
)

_PASSING = {
    "in front of": "passes in front of",
    "behind": "passes behind",
    "apart": "stays apart from",
}
_MOVES = ("moves", "goes", "travels", "slides")
_MOVING = ("moving", "going", "travelling", "sliding")
_CROSSES = ("passes", "crosses", "goes")
_APART = ("stays apart from", "never touches", "keeps away from")
_SYNONYMS = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "slowly": ("slowly", "slow"),
    "quickly": ("quickly", "fast"),
    "left": ("left", "to the left", "leftwards"),
    "right": ("right", "to the right", "rightwards"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
    "dark": ("dark",),
    "grey": ("grey",),
    "light": ("light", "bright"),
}
_OMIT = 0.04  # of each attribute that may be left unsaid; marks, colours and shapes are not

_THING = (
    rf"a (?P<size{{0}}>{'|'.join(SIZES)}) (?P<colour{{0}}>{'|'.join(COLOURS)}) "
    rf"(?P<shape{{0}}>{'|'.join(SHAPES)})(?: with a (?P<mark{{0}}>{'|'.join(MARKS[1:])}))? "
    rf"(?:moves|moving) (?P<direction{{0}}>{'|'.join(DIRECTIONS)}) "
    rf"(?P<speed{{0}}>{'|'.join(SPEEDS)})"
)
_CANONICAL = re.compile(
    rf"{_THING.format(1)} and (?P<passing>{'|'.join(_PASSING.values())}) {_THING.format(2)} "
    rf"on a (?P<background>{'|'.join(BACKGROUNDS)}) background"
)


def caption_rng(seed: int, index: int) -> random.Random:
    """The generator that varies the caption of one clip."""
    return random.Random(f"{seed}/{index}")


def caption(scene: Scene, rng: random.Random | None = None) -> str:
    """The canonical caption of a scene; with `rng` a varied one."""
    if rng is not None:
        return _varied(scene, rng)
    first, second = scene.first, scene.second
    return (
        f"{_noun(first)} moves {first.direction} {first.speed} and {_PASSING[scene.relation]} "
        f"{_noun(second)} moving {second.direction} {second.speed} "
        f"on a {scene.background} background"
    )


def parse_caption(text: str) -> Scene:
    """The scene that a canonical caption states.

    Raises:
        ValueError: the text is not in the canonical form.
    """
    match = _CANONICAL.fullmatch(text.strip().rstrip("."))
    if match is None:
        raise ValueError(f"not a canonical caption: {text!r}; `caption(scene)` makes one")
    part = match.groupdict()
    first, second = (
        Thing(
            part[f"colour{i}"],
            part[f"shape{i}"],
            part[f"size{i}"],
            part[f"direction{i}"],
            part[f"speed{i}"],
            part[f"mark{i}"] or "none",
        )
        for i in (1, 2)
    )
    relation = next(k for k, v in _PASSING.items() if v == part["passing"])
    return Scene(part["background"], first, second, relation)


def _noun(thing: Thing) -> str:
    mark = "" if thing.mark == "none" else f" with a {thing.mark}"
    return f"a {thing.size} {thing.colour} {thing.shape}{mark}"


def _varied(scene: Scene, rng: random.Random) -> str:
    def say(word: str) -> str:
        return "" if rng.random() < _OMIT else rng.choice(_SYNONYMS[word])

    def noun(thing: Thing) -> str:
        mark = "" if thing.mark == "none" else f"with a {thing.mark}"
        return _join("a", say(thing.size), thing.colour, thing.shape, mark)

    def motion(thing: Thing, verbs: tuple[str, ...]) -> str:
        way, pace = say(thing.direction), say(thing.speed)
        ordered = (pace, way) if pace == "slowly" and rng.random() < 0.3 else (way, pace)
        return _join(rng.choice(verbs), *ordered) if way or pace else ""

    first, second = scene.first, scene.second
    subject, going = noun(first), motion(first, _MOVES)
    target = _join(noun(second), motion(second, _MOVING))
    passing = _relation(scene, rng)
    ground = rng.choice(_SYNONYMS[scene.background])
    style = rng.random()
    if style < 0.8:
        text = _join(subject, going, "and" if going else "", passing, target)
    else:
        text = _join(subject, passing, target, f"while it {going}" if going else "")
    if rng.random() < _OMIT:
        return text
    where = f"on a {ground} background"
    return f"{where} {text}" if style < 0.15 else f"{text} {where}"


def _relation(scene: Scene, rng: random.Random) -> str:
    if scene.relation == "apart":
        return rng.choice(_APART)
    first, second = scene.first, scene.second
    overtakes = first.direction == second.direction and first.speed == "quickly"
    return f"{rng.choice((*_CROSSES, 'overtakes') if overtakes else _CROSSES)} {scene.relation}"


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)


def _vocabulary() -> tuple[str, ...]:
    phrases = ["a on with and while it background", *BACKGROUNDS, *COLOURS, *SHAPES, *MARKS[1:]]
    phrases += [*SIZES, *DIRECTIONS, *SPEEDS, *_PASSING, *_PASSING.values(), "overtakes"]
    phrases += [*_MOVES, *_MOVING, *_CROSSES, *_APART]
    phrases += [phrase for options in _SYNONYMS.values() for phrase in options]
    # "apart" names a relation and is also said in captions, so every listed word is used.
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))


VOCABULARY = _vocabulary()
