"""The world of the small model: an endless list of captioned videos, and the judge of them.

Imports torch and numpy only, so that the training machine needs nothing else of gatekit.
"""

from gatekit_tinywan.world.attributes import Codes, Scene, Thing, encode
from gatekit_tinywan.world.captions import VOCABULARY, caption, parse_caption
from gatekit_tinywan.world.judge import Verdict, compare, judge
from gatekit_tinywan.world.judge_measure import Reading, measure
from gatekit_tinywan.world.layout import HELD_OUT_SEED, TRAIN_SEED, SceneBatch, sample_scenes
from gatekit_tinywan.world.render import render

__all__ = [
    "HELD_OUT_SEED",
    "TRAIN_SEED",
    "VOCABULARY",
    "Codes",
    "Reading",
    "Scene",
    "SceneBatch",
    "Thing",
    "Verdict",
    "caption",
    "compare",
    "encode",
    "judge",
    "measure",
    "parse_caption",
    "render",
    "sample_scenes",
]
