"""Measurement of a video by classical means, without learned parts.

Colours are told by hue, paths by a robust line through the centroids, shapes and marks by
comparison with drawn templates, and who is in front by the colour seen where the two drawn
outlines overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gatekit_tinywan.world.attributes import APART, HEADINGS
from gatekit_tinywan.world.judge_patches import (
    cut,
    mark_zone,
    offsets,
    read_mark,
    read_shape,
    segments,
)
from gatekit_tinywan.world.judge_tracks import (
    CHROMA,
    Tracks,
    chroma,
    colour_masks,
    follow,
    near,
    soft,
)
from gatekit_tinywan.world.layout import LEVELS, SIDE, SPEEDS_PX
from gatekit_tinywan.world.overlap import RADII
from gatekit_tinywan.world.shapes import distance

_SMALLEST = 80.0  # area below which a colour is not there
_STRAIGHT = 2.5  # pixels from the path, root mean square
_SLOWEST, _FASTEST = 0.45, 3.4
_LEAST_RADIUS, _MOST_RADIUS = 6.0, 17.5
_TOUCH, _MEET = 0.06, 0.22  # overlap over the smaller area: below the first apart, above it meets


@dataclass(frozen=True)
class Reading:
    """What is measured, as codes; -1 where nothing known is seen. `s`: segments of the clip."""

    background: torch.Tensor  # [n]
    found: torch.Tensor  # [n, 2] the colour is there, and stays
    shape: torch.Tensor  # [n, 2, s]
    size: torch.Tensor  # [n, 2, s]
    direction: torch.Tensor  # [n, 2]
    speed: torch.Tensor  # [n, 2]
    mark: torch.Tensor  # [n, 2, s]
    relation: torch.Tensor  # [n]
    extra: torch.Tensor  # [n] area of what is neither thing nor background
    tracks: Tracks


@torch.no_grad()
def measure(video: torch.Tensor, colour: torch.Tensor) -> Reading:
    """Measures videos [n, 3, T, H, W] in which things of the colours [n, 2] are expected."""
    video = video.float().clamp(0.0, 1.0)
    if video.shape[-2:] != (int(SIDE), int(SIDE)):
        size = (video.shape[2], int(SIDE), int(SIDE))
        video = torch.nn.functional.interpolate(video, size=size, mode="trilinear")
    masks = colour_masks(video, colour)
    tracks = follow(masks)
    weights = segments(tracks.whole)
    patches = cut(video, torch.where(tracks.whole[..., None] > 0, tracks.place, tracks.fitted))
    shapes, radii = read_shape(patches, weights, colour)
    shape, radius = shapes.median(-1).values, radii.mean(-1)

    overlap, lead = _meeting(patches[:, 0], colour, shape, radius, tracks)
    expected = (overlap < 0.03)[:, None]
    # A mark that comes or goes changes the coloured area, so all frames that may show it count.
    shown = torch.maximum(tracks.whole, expected.float())
    mark = read_mark(patches, segments(shown), shape, radius)

    # A thing has to be there, whole, in all but a few of the frames that do not hide it.
    steady = (tracks.area > 0.6 * tracks.full[..., None]) & expected
    steady &= tracks.area < 1.5 * tracks.full[..., None]
    count = expected.sum(-1)
    found = (tracks.full > _SMALLEST) & (count >= 4) & (steady.sum(-1) >= 0.85 * count)

    known = (radii > _LEAST_RADIUS) & (radii < _MOST_RADIUS)
    size = torch.where(known, (radii > math.sqrt(RADII[0] * RADII[1])).long(), -1)
    level, background = _background(video)
    direction, speed = _motion(tracks)
    return Reading(
        background=background,
        found=found,
        shape=shapes,
        size=size,
        direction=direction,
        speed=speed,
        mark=mark,
        relation=_relation(overlap, lead),
        extra=_extra(video, masks, tracks, level),
        tracks=tracks,
    )


def _background(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Median grey of every frame [n, T], and the code of the background, -1 for none."""
    colours = video[..., ::3, ::3].flatten(-2).median(dim=-1).values  # [n, 3, T]
    level = colours.mean(dim=1)
    neutral = (colours.amax(1) - colours.amin(1) < 0.12).all(dim=1)
    nominal = torch.tensor(LEVELS, device=video.device)
    near_level = ((level[..., None] - nominal).abs() < 0.12).all(dim=1)  # [n, 3]
    code = near_level.float().argmax(dim=1)
    return level, torch.where(near_level.any(dim=1) & neutral, code, -1)


def _motion(tracks: Tracks) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of direction and speed, [n, 2]; -1 for slanting, crooked or still."""
    headings = torch.tensor(HEADINGS, device=tracks.velocity.device)
    ahead, direction = (tracks.velocity @ headings.T).max(dim=-1)
    total = tracks.velocity.norm(dim=-1)
    straight = (ahead > 0.9 * total) & (tracks.residual < _STRAIGHT) & (ahead > _SLOWEST)
    quick = (ahead > math.sqrt(SPEEDS_PX[0] * SPEEDS_PX[1])).long()
    moving = (ahead > _SLOWEST) & (ahead < _FASTEST)
    return torch.where(straight, direction, -1), torch.where(moving, quick, -1)


def _meeting(
    patches: torch.Tensor,
    colour: torch.Tensor,
    shape: torch.Tensor,
    radius: torch.Tensor,
    tracks: Tracks,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlap of the drawn outlines and who is seen there.

    Args:
        patches: around the first thing, [n, 3, T, P, P].
        colour: codes, [n, 2].
        shape: codes, [n, 2].
        radius: [n, 2].
        tracks: of both things.

    Returns:
        Overlap as a part of the smaller area [n, T]; 1 where the overlap shows the first thing's
        colour in all frames, -1 for the second's, [n].
    """
    x, y = offsets(patches.device)
    at = torch.where(tracks.whole[..., None] > 0, tracks.place, tracks.fitted)
    away = (tracks.fitted[:, 1] - at[:, 0])[..., None, None]  # [n, T, (x, y), 1, 1]
    codes, sizes = shape.view(-1, 2, 1, 1, 1), radius.view(-1, 2, 1, 1, 1)
    dx, dy = x - away[:, :, 0], y - away[:, :, 1]
    first = distance(codes[:, 0], x, y, sizes[:, 0])
    second = distance(codes[:, 1], dx, dy, sizes[:, 1])
    deeper = torch.maximum(first, second)
    smaller = (math.pi * radius.square().amin(dim=1)).clamp(min=1.0)
    overlap = (deeper < 0).float().sum((-2, -1)) / smaller[:, None]

    # Outlines are not exact and marks have no hue, so their surroundings do not count.
    inside = (deeper < -0.8) & ~mark_zone(x, y) & ~mark_zone(dx, dy)
    masks = colour_masks(patches, colour) * inside[:, None]
    share = masks.sum((2, 3, 4))
    lead = (share[:, 0] - share[:, 1]) / inside.sum((1, 2, 3)).clamp(min=1)
    return overlap, lead


def _relation(overlap: torch.Tensor, lead: torch.Tensor) -> torch.Tensor:
    """Code of the relation [n]; -1 where they graze or blend."""
    most = overlap.amax(dim=1)
    meets = (overlap > _MEET).sum(dim=1) >= 2
    order = torch.where(lead > 0.5, 0, torch.where(lead < -0.5, 1, -1))
    return torch.where(most < _TOUCH, APART, torch.where(meets, order, -1))


def _extra(
    video: torch.Tensor, masks: torch.Tensor, tracks: Tracks, level: torch.Tensor
) -> torch.Tensor:
    """Area of what belongs neither to the things nor to the background, worst fifth of frames."""
    rows, columns = near(tracks.fitted, tracks.full)
    u, v = chroma(video)
    coloured = soft((u * u + v * v).sqrt_() / CHROMA)
    odd = (video.mean(dim=1) - level[..., None, None]).abs_() > 0.2
    boxes = rows[..., None] * columns[..., None, :]
    outside = (1 - boxes[:, 0]) * (1 - boxes[:, 1])
    stray = (torch.maximum(coloured, odd.float()) * outside).sum((-2, -1))
    # Where the things touch, their colours blend into a line of another hue: erosion removes it.
    other = (coloured - masks.sum(dim=1)).relu_() * (1 - outside)
    for axis in (-2, -1):
        parts = [other.narrow(axis, i, int(SIDE) - 2) for i in range(3)]
        other = torch.minimum(torch.minimum(parts[0], parts[1]), parts[2])
    other = other.sum((-2, -1))
    return torch.quantile(stray + other, 0.8, dim=1)
