"""Captions: the canonical one says everything and parses back; all words are known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekit_tinywan.world import (
    TRAIN_SEED,
    VOCABULARY,
    Scene,
    Thing,
    caption,
    encode,
    parse_caption,
    sample_scenes,
)
from gatekit_tinywan.world.attributes import (
    BACKGROUNDS,
    COLOURS,
    DIRECTIONS,
    MARKS,
    RELATIONS,
    SHAPES,
    SIZES,
    SPEEDS,
)

things = st.builds(
    Thing,
    colour=st.sampled_from(COLOURS),
    shape=st.sampled_from(SHAPES),
    size=st.sampled_from(SIZES),
    direction=st.sampled_from(DIRECTIONS),
    speed=st.sampled_from(SPEEDS),
    mark=st.sampled_from(MARKS),
)
any_scene = st.builds(
    Scene,
    background=st.sampled_from(BACKGROUNDS),
    first=things,
    second=things,
    relation=st.sampled_from(RELATIONS),
)


@given(any_scene)
def test_the_canonical_caption_parses_back(scene):
    assert parse_caption(caption(scene)) == scene


@given(any_scene)
def test_codes_describe_the_scene_they_encode(scene):
    assert encode([scene]).scenes() == [scene]


@given(any_scene, st.integers(0, 2**32))
def test_all_words_are_in_the_vocabulary(scene, seed):
    assert set(caption(scene).split()) <= set(VOCABULARY)
    assert set(caption(scene, random.Random(seed)).split()) <= set(VOCABULARY)


@given(any_scene, st.integers(0, 2**32))
def test_a_varied_caption_never_leaves_out_who_is_who(scene, seed):
    text = caption(scene, random.Random(seed))
    for thing in (scene.first, scene.second):
        mark = "" if thing.mark == "none" else f" with a {thing.mark}"
        assert f"{thing.colour} {thing.shape}{mark}" in text
    assert text.count(" with a ") == sum(t.mark != "none" for t in (scene.first, scene.second))
    assert text.find(scene.first.colour) <= text.find(scene.second.colour)


def test_varied_captions_vary_and_repeat():
    scenes = sample_scenes(TRAIN_SEED, range(2000))
    varied = scenes.captions(vary=True)
    assert varied == scenes.captions(vary=True)
    assert scenes[10:20].captions(vary=True) == varied[10:20]
    assert sum(a != b for a, b in zip(varied, scenes.captions(), strict=True)) > 1500
    assert {word for text in varied for word in text.split()} > {"big", "touches", "leftwards"}


def test_the_vocabulary_is_a_sorted_closed_list():
    assert list(VOCABULARY) == sorted(set(VOCABULARY))
    assert all(word.isalpha() and word.islower() for word in VOCABULARY)


@pytest.mark.parametrize("text", ["", "a red circle", "a large purple circle moves left slowly"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="canonical"):
        parse_caption(text)
