"""The judge: right on true clips, also blurred and noisy ones, and strict on every attribute."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekit_tinywan.world import (
    HELD_OUT_SEED,
    Codes,
    Reading,
    SceneBatch,
    compare,
    judge,
    measure,
    render,
    sample_scenes,
)
from gatekit_tinywan.world.attributes import APART, THING_WORDS
from gatekit_tinywan.world.judge_tracks import fit_line
from gatekit_tinywan.world.overlap import RADII
from gatekit_tinywan.world.render import positions

CLIPS = 96
SOME = 32  # of them, where many judgements are made


def blur(video: torch.Tensor) -> torch.Tensor:
    """Blur of the pictures with a standard deviation of 0.7 pixels."""
    soft = torch.nn.functional.pad(video, (1, 1, 1, 1, 0, 0), mode="replicate")
    for axis in (-2, -1):
        parts = [soft.narrow(axis, i, soft.shape[axis] - 2) for i in range(3)]
        soft = 0.25 * (parts[0] + parts[2]) + 0.5 * parts[1]
    return soft


def degrade(video: torch.Tensor, decibels: float, seed: int) -> torch.Tensor:
    """What an autoencoder of that PSNR leaves: blur, and smooth noise up to the error asked."""
    generator = torch.Generator().manual_seed(seed)
    soft = blur(video)
    noise = blur(torch.randn(video.shape, generator=generator))
    missing = 10 ** (-decibels / 10) - (soft - video).square().mean((1, 2, 3, 4), keepdim=True)
    return (soft + noise / noise.std() * missing.clamp(min=0).sqrt()).clamp(0, 1)


@pytest.fixture(scope="module")
def scenes() -> SceneBatch:
    return sample_scenes(HELD_OUT_SEED, range(CLIPS), "held_out")


@pytest.fixture(scope="module")
def clean(scenes) -> torch.Tensor:
    return torch.cat([render(scenes[i : i + 8]) for i in range(0, CLIPS, 8)])


def test_true_clips_are_right(scenes, clean):
    verdict = judge(clean, scenes)
    assert verdict.all_right.float().mean() >= 0.985
    assert verdict.rates()["all_right"] == verdict.all_right.float().mean()


@pytest.mark.parametrize("decibels", [34, 32])
def test_clips_through_an_autoencoder_are_right(scenes, clean, decibels):
    right = []
    for i in range(0, CLIPS, 4):
        video = degrade(clean[i : i + 4], decibels, i)
        error = (video - clean[i : i + 4]).square().mean()
        assert -10 * error.log10() == pytest.approx(decibels, abs=1.0)
        right.append(judge(video, scenes[i : i + 4]).all_right)
    assert torch.cat(right).float().mean() >= 0.985


def altered(codes: Codes, name: str, which: int, step: int) -> Codes:
    """The codes with one attribute changed to another word."""
    values = getattr(codes, name).clone()
    column = values if values.dim() == 1 else values[:, which]
    count = len(THING_WORDS.get(name, "abc"))
    column.copy_((column + step) % count)
    if name == "colour":  # two things of one colour cannot be asked for
        clash = values[:, 0] == values[:, 1]
        column[clash] = (column[clash] + (1 if step < count - 1 else -1 - count)) % count
    return dataclasses.replace(codes, **{name: values})


def measured(video: torch.Tensor, colour: torch.Tensor) -> list[Reading]:
    """Readings of four clips each, as the judge makes them."""
    return [measure(video[i : i + 4], colour[i : i + 4]) for i in range(0, len(video), 4)]


def compared(readings: list[Reading], codes: Codes, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the attribute, and whether everything, is judged right."""
    parts = [compare(r, codes[4 * i : 4 * i + 4]) for i, r in enumerate(readings)]
    right = torch.cat([getattr(p, name).reshape(4, -1).all(dim=1) for p in parts])
    return right, torch.cat([p.all_right for p in parts])


@pytest.fixture(scope="module")
def readings(scenes, clean) -> list[Reading]:
    return measured(clean[:SOME], scenes.codes.colour)


@pytest.mark.parametrize("name", ["background", "relation", *THING_WORDS])
def test_one_other_word_is_wrong(scenes, clean, readings, name):
    codes = scenes.codes[:SOME]
    for which in range(getattr(codes, name).dim()):
        for step in range(1, len(THING_WORDS.get(name, "abc"))):
            if name == "colour" and step > 2:
                continue
            other = altered(codes, name, which, step)
            # The judge looks for the colours that it is asked for.
            seen = measured(clean[:SOME], other.colour) if name == "colour" else readings
            right, all_right = compared(seen, other, name)
            assert right.float().mean() <= 0.02
            assert all_right.float().mean() <= 0.02


@pytest.mark.parametrize("name", ["colour", "shape", "size", "mark"])
def test_what_changes_half_way_is_wrong(scenes, clean, name):
    # Of clips that hide a thing after the change, the change may not be seen.
    some = torch.nonzero(scenes.codes.relation == APART)[:24, 0]
    codes = altered(scenes.codes[some], name, 0, 1)
    rgb = scenes.rgb[some].clone()
    if name == "colour":
        rgb[:, 0] = rgb[:, 0].roll(1, dims=-1)
    radius = scenes.radius[some].clone()
    if name == "size":
        radius[:, 0] = torch.tensor(RADII)[codes.size[:, 0]]
    other = dataclasses.replace(scenes[some], codes=codes, rgb=rgb, radius=radius)
    video = torch.cat([clean[some, :, :12], render(other)[:, :, 12:]], dim=2)
    # A large thing that turns into one of 0.59 of its area may pass for one that is partly hidden.
    assert judge(video, scenes[some]).all_right.sum() <= (name == "size")


def test_a_change_of_order_is_wrong(scenes, clean):
    meets = torch.nonzero(scenes.codes.relation < 2)[:32, 0]
    chosen = scenes[meets]
    other = dataclasses.replace(
        chosen, codes=dataclasses.replace(chosen.codes, relation=1 - chosen.codes.relation)
    )
    assert judge(render(other), chosen).all_right.sum() == 0
    assert judge(render(other), other).all_right.float().mean() >= 0.97


@pytest.mark.parametrize("paint", [(0.9, 0.2, 0.2), (0.2, 0.9, 0.2), (0.2, 0.3, 0.9), None])
def test_a_third_thing_is_wrong(scenes, clean, paint):
    some = slice(0, 16)
    line = torch.arange(96) + 0.5
    path = positions(scenes[some]).flatten(1, 2)
    corners = torch.tensor([[x, y] for x in (12.0, 84.0) for y in (12.0, 84.0)])
    # The corner that the two things come least near to.
    free = torch.cdist(path, corners.expand(16, -1, -1)).amin(dim=1).max(dim=1)
    video = clean[some].clone()
    for i, (x, y) in enumerate(corners[free.indices].tolist()):
        disc = torch.hypot(line - x, line[:, None] - y) < 6
        colour = torch.tensor(paint or [1 - float(scenes.level[i].round())] * 3)
        video[i] = torch.where(disc, colour[:, None, None, None], video[i])
    verdict = judge(video[free.values > 22], scenes.codes[some][free.values > 22])
    assert len(verdict.all_right) > 8
    assert not verdict.no_extra.any()


def test_a_still_picture_and_noise_are_wrong(scenes, clean):
    some = slice(0, 16)
    still = clean[some, :, :1].expand(-1, -1, 25, -1, -1)
    verdict = judge(still, scenes[some])
    assert not verdict.direction.any()
    assert not verdict.speed.any()
    for video in (torch.rand(4, 3, 25, 96, 96), torch.full((4, 3, 25, 96, 96), 0.45)):
        assert not judge(video, scenes[:4]).all_right.any()


def test_other_sizes_and_words_are_judged_alike(scenes, clean):
    large = render(scenes[:6], frames=33, height=128, width=128)
    assert judge(large, scenes.codes[:6]).all_right.all()
    assert judge(clean[:6], scenes.codes[:6].scenes()).all_right.all()


def test_a_verdict_does_not_depend_on_its_batch(scenes, clean):
    together, alone = judge(clean[:20], scenes[:20]), judge(clean[18:19], scenes[18:19])
    for field in dataclasses.fields(together):
        assert torch.equal(getattr(together, field.name)[18:19], getattr(alone, field.name))


def test_captions_have_to_match_videos(scenes, clean):
    with pytest.raises(ValueError, match="3 captions"):
        judge(clean[:2], scenes[:3])


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(*[st.floats(-3, 3, width=32)] * 2),
    st.tuples(*[st.floats(20, 70, width=32)] * 2),
    st.integers(0, 24),
)
def test_one_wild_place_does_not_bend_the_path(velocity, start, wild):
    time = torch.arange(25.0) - 12
    place = torch.tensor(start) + time[:, None] * torch.tensor(velocity)
    place[wild] += 15
    found_start, found_velocity, _ = fit_line(time, place, torch.ones(25))
    assert (found_start - torch.tensor(start)).abs().max() < 0.3
    assert (found_velocity - torch.tensor(velocity)).abs().max() < 0.05
