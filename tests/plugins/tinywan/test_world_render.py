"""Rendering: sizes, paints, marks, who hides whom, and weights."""

import dataclasses
import math

import pytest
import torch

from gatekit_tinywan.world import TRAIN_SEED, SceneBatch, render, sample_scenes
from gatekit_tinywan.world.attributes import APART, MARKS
from gatekit_tinywan.world.layout import SIDE
from gatekit_tinywan.world.overlap import GAP, RADII, overlap_fraction
from gatekit_tinywan.world.render import MARK_WEIGHT, THING_WEIGHT, positions
from gatekit_tinywan.world.shapes import coverage, distance, distances


@pytest.fixture(scope="module")
def scenes() -> SceneBatch:
    return sample_scenes(TRAIN_SEED, range(24))


@pytest.fixture(scope="module")
def drawn(scenes) -> tuple[torch.Tensor, torch.Tensor]:
    return render(scenes, return_weights=True)


def outlines(scenes: SceneBatch) -> torch.Tensor:
    """Signed distance of both things, by the definition: [n, 2, T, 96, 96]."""
    line = torch.arange(96) + 0.5
    at = positions(scenes)[..., None, None]
    shape, radius = (v[..., None, None, None] for v in (scenes.codes.shape, scenes.radius))
    return distance(shape, line - at[..., 0, :, :], line[:, None] - at[..., 1, :, :], radius)


def test_shape_type_and_range(drawn):
    video, weights = drawn
    assert video.shape == (24, 3, 25, 96, 96)
    assert weights.shape == (24, 1, 25, 96, 96)
    assert video.dtype == torch.float32
    assert video.min() >= 0
    assert video.max() <= 1


def test_a_clip_does_not_depend_on_its_batch(scenes, drawn):
    assert torch.equal(render(scenes[7:9]), drawn[0][7:9])


@pytest.mark.parametrize("radius", RADII)
def test_shapes_of_one_size_have_one_area(radius):
    line = torch.arange(96) - 47.5
    for field in distances(line, line[:, None], torch.tensor(radius)):
        assert coverage(field).sum().item() == pytest.approx(math.pi * radius**2, rel=0.01)


def test_shapes_are_centred_on_their_centroids():
    line = torch.arange(96) - 47.5
    for field in distances(line, line[:, None], torch.tensor(13.0)):
        area = coverage(field)
        assert abs((area * line).sum() / area.sum()) < 0.1
        assert abs((area * line[:, None]).sum() / area.sum()) < 0.1


def test_the_one_in_front_is_seen_where_they_overlap(scenes, drawn):
    fields = outlines(scenes)
    line = torch.arange(96) + 0.5
    at = positions(scenes)[..., None, None]
    # Away from marks, which have paints of their own.
    far = torch.hypot(line - at[..., 0, :, :], line[:, None] - at[..., 1, :, :]) > 7
    inside = ((fields < -1) & far).all(dim=1)
    meets = scenes.codes.relation != APART
    assert meets.sum() > 10
    for i in range(len(scenes)):
        assert bool(inside[i].any()) == bool(meets[i])
        if meets[i]:
            front = scenes.rgb[i, scenes.codes.relation[i]]
            seen = drawn[0][i][:, inside[i]]
            torch.testing.assert_close(seen, front[:, None].expand_as(seen))


def test_apart_keeps_a_gap():
    scenes = sample_scenes(TRAIN_SEED, range(200))
    scenes = scenes[scenes.codes.relation == APART]
    inside = outlines(scenes[:20]) < 0
    for first, second in inside.transpose(1, 2).flatten(0, 1):
        between = torch.cdist(first.nonzero().float(), second.nonzero().float())
        assert between.amin() > GAP - 1.5  # radii differ by 4 % from what the layout assumes


def test_meeting_things_overlap_enough_and_clear_enough():
    scenes = sample_scenes(TRAIN_SEED, range(200))
    scenes = scenes[scenes.codes.relation != APART][:30]
    both = coverage(outlines(scenes).amax(dim=1)).sum((-2, -1))
    part = both / (math.pi * scenes.radius.square().amin(dim=1))[:, None]
    assert ((part > 0.33).sum(dim=1) >= 3).all()
    assert ((part < 0.05).sum(dim=1) >= 8).all()
    assert (part[:, 0] < 0.15).all()


def test_the_overlap_table_agrees_with_drawing(scenes):
    both = coverage(outlines(scenes).amax(dim=1)).sum((-2, -1))
    part = both / (math.pi * scenes.radius.square().amin(dim=1))[:, None]
    path = positions(scenes).numpy()
    codes = scenes.codes
    table = overlap_fraction(codes.shape.numpy(), codes.size.numpy(), path[:, 1] - path[:, 0])
    assert (part - torch.from_numpy(table)).abs().max() < 0.15


def test_marks_have_their_paint_and_the_rest_its_colour(scenes, drawn):
    path = positions(scenes)
    seen = 0
    for i in range(len(scenes)):
        for k in range(2):
            x, y = (path[i, k, 0]).floor().long().tolist()  # nothing is hidden in frame 0
            pixel = drawn[0][i, :, 0, y, x]
            word = MARKS[scenes.codes.mark[i, k]]
            expected = scenes.rgb[i, k]
            if word != "none":
                expected = torch.full((3,), float(word.startswith("white")))
                seen += 1
            torch.testing.assert_close(pixel, expected)
    assert seen > 10


def test_bars_are_wider_than_dots():
    scenes = sample_scenes(TRAIN_SEED, range(1))
    spots = []
    for mark in (1, 2):
        codes = dataclasses.replace(scenes.codes, mark=torch.tensor([[mark, 0]]))
        weights = render(dataclasses.replace(scenes, codes=codes), return_weights=True)[1]
        rows, columns = torch.nonzero(weights[0, 0, 0] > THING_WEIGHT + 2, as_tuple=True)
        spots.append((columns.max() - columns.min() + 1, rows.max() - rows.min() + 1))
    (dot_wide, dot_high), (bar_wide, bar_high) = spots
    assert abs(dot_wide - dot_high) <= 1
    assert bar_wide > 1.5 * dot_wide
    assert bar_high < dot_high


def test_weights_mark_things_and_marks(scenes, drawn):
    weights, fields = drawn[1][:, 0], outlines(scenes)
    nearest = fields.amin(dim=1)
    assert (weights[nearest > 1] == 1).all()
    assert (weights[nearest < -1] >= THING_WEIGHT - 1e-4).all()
    marked = (scenes.codes.mark > 0).any(dim=1)
    most = weights[:, 0].flatten(1).amax(dim=1)
    torch.testing.assert_close(most, torch.where(marked, MARK_WEIGHT, THING_WEIGHT))


def test_other_sizes_tell_the_same_story(scenes, drawn):
    small = render(scenes[:4], frames=13, height=48, width=48)
    same = torch.nn.functional.avg_pool3d(drawn[0][:4, :, ::2], (1, 2, 2))
    assert (small - same).abs().mean() < 0.004
    assert render(scenes[:1], frames=1, height=64, width=int(SIDE)).shape == (1, 3, 1, 64, 96)
