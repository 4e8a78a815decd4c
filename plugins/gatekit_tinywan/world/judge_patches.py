"""Shape, size and mark of a thing, by comparing what is seen around its centre with templates.

Everything is measured four times, in as many successive segments of the frames that show the thing
whole: a mark that turns from a bar into a dot is not a bar.
"""

from __future__ import annotations

import math

import torch

from gatekit_tinywan.world.judge_tracks import colour_masks
from gatekit_tinywan.world.layout import SIDE
from gatekit_tinywan.world.shapes import BAR_HALF, DOT_RADIUS, coverage, distances, mark_distance

REACH = 23  # patches hold 2 REACH + 1 pixels a side
SEGMENTS = 4
_SCALES = (0.92, 0.96, 1.0, 1.04, 1.08)
_MARK_REACH = (8, 6)
_SHIFTS = (-1.0, 0.0, 1.0)
_FAINTEST = 0.4  # a mark has at least this part of its contrast
_WORST_SHAPE = 0.2  # squared error over the template's energy; circle and square differ by 0.14


def offsets(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets (x, y) from the centre of a patch's pixels, [1, P] and [P, 1]."""
    line = torch.arange(-REACH, REACH + 1, device=device, dtype=torch.float32)
    return line[None, :], line[:, None]


def cut(video: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Patches around places.

    Args:
        video: [n, 3, T, 96, 96].
        at: [n, 2, T, (x, y)].

    Returns:
        [n, 2, 3, T, P, P], bilinear.
    """
    n, _, frames = video.shape[:3]
    x, y = offsets(video.device)
    side = 2 * REACH + 1
    grid = torch.stack([x.expand(side, side), y.expand(side, side)], dim=-1)
    grid = (at.transpose(1, 2)[..., None, None, :] + grid) * (2 / SIDE) - 1  # [n, T, 2, P, P, xy]
    found = torch.nn.functional.grid_sample(
        video.transpose(1, 2).flatten(0, 1),
        grid.reshape(n * frames, 2 * side, side, 2),
        padding_mode="zeros",  # black has no hue; "border" would stretch what touches the edge
        align_corners=False,
    )
    return found.view(n, frames, 3, 2, side, side).permute(0, 3, 2, 1, 4, 5)


def segments(frames: torch.Tensor) -> torch.Tensor:
    """Weights [n, 2, s, T] of the segments, each with as many of the frames marked in [n, 2, T]."""
    count = frames.sum(-1, keepdim=True).clamp(min=1.0)
    segment = ((frames.cumsum(-1) - 0.5) * (SEGMENTS / count)).floor()
    number = torch.arange(SEGMENTS, device=frames.device)
    chosen = frames[:, :, None] * (segment[:, :, None] == number[:, None])
    return chosen / chosen.sum(-1, keepdim=True).clamp(min=1.0)


def mark_zone(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Where a mark may be, with a margin of more than a pixel."""
    in_bar = (x.abs() < BAR_HALF[0] + 1.6) & (y.abs() < BAR_HALF[1] + 1.6)
    return in_bar | (x * x + y * y < (DOT_RADIUS + 1.6) ** 2)


def read_shape(
    patches: torch.Tensor, weights: torch.Tensor, colour: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Shape codes and equivalent radii, both [n, 2 things, s]; -1 is no known shape.

    Args:
        patches: [n, 2, 3, T, P, P].
        weights: of the frames in each segment, [n, 2, s, T].
        colour: codes, [n, 2].
    """
    own = colour_masks(patches.flatten(0, 1), colour.reshape(-1, 1))[:, 0]
    seen = torch.einsum("nktij,nkst->nksij", own.unflatten(0, patches.shape[:2]), weights)
    x, y = offsets(patches.device)
    zone = mark_zone(x, y)
    # The mark leaves a hole in the mask; all shapes cover its place.
    filled = torch.where(zone, 1.0, seen)
    radius = (filled.sum((-2, -1)) / math.pi).sqrt()

    errors = []
    for scale in _SCALES:
        size = (radius.mean(-1, keepdim=True) * scale)[..., None, None]
        templates = coverage(torch.stack(distances(x, y, size), dim=3))
        error = (filled[:, :, :, None] - templates).square().sum((-2, -1))
        errors.append(error / templates.square().sum((-2, -1)).clamp(min=1.0))
    error, shape = torch.stack(errors).amin(0).min(dim=-1)
    known = (error < _WORST_SHAPE) & (weights.sum(-1) > 0)
    return torch.where(known, shape, -1), radius


def read_mark(
    patches: torch.Tensor, weights: torch.Tensor, shape: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Codes of marks, [n, 2 things, s].

    The patch's middle is explained as the thing's own colour plus a mark of some strength, white
    or black, dot or bar, up to a pixel off the centre; the best explanation wins, and a faint one
    is none.

    Args:
        patches: [n, 2, 3, T, P, P].
        weights: of the frames in each segment, [n, 2, s, T].
        shape: codes, [n, 2]; negative ones count as circles.
        radius: [n, 2].
    """
    seen = torch.einsum("nkctij,nkst->nkscij", patches, weights)
    x, y = offsets(patches.device)
    inner = torch.stack(distances(x, y, radius[..., None, None]), dim=2)
    inner = inner.gather(2, shape.clamp(min=0)[..., None, None, None].expand_as(inner[:, :, :1]))
    inner = inner[:, :, 0, None, None] < -1.2  # [n, 2, 1, 1, P, P]
    plain = (inner & ~mark_zone(x, y)).float()
    own = (seen * plain).sum((-2, -1)) / plain.sum((-2, -1)).clamp(min=1.0)  # [n, 2, s, 3]

    wide, high = _MARK_REACH
    middle = (slice(REACH - high, REACH + high + 1), slice(REACH - wide, REACH + wide + 1))
    x, y = x[:, middle[1]], y[middle[0]]
    inside = inner[..., middle[0], middle[1]].float()
    left = (seen[..., middle[0], middle[1]] - own[..., None, None]) * inside

    gains, strengths = [], []
    for paint in (1.0, 0.0):
        contrast = paint - own  # [n, 2, s, 3]
        energy = contrast.square().sum(-1, keepdim=True)
        # Only the part of the difference along the contrast depends on the mark.
        along = torch.einsum("nkscij,nksc->nksij", left, contrast)[:, :, :, None]
        for is_bar in (False, True):
            template = _mark_templates(is_bar, x, y) * inside  # [n, 2, 1, shift, h, w]
            power = energy * template.square().sum((-2, -1))
            overlap = (along * template).sum((-2, -1))
            strength = (overlap / power.clamp(min=1e-6)).clamp(0.0, 1.2)
            # How much less squared error remains when the mark is taken into account.
            gain = 2 * strength * overlap - strength.square() * power
            best, shift = gain.max(dim=-1)
            gains.append(best)
            strengths.append(strength.gather(-1, shift[..., None])[..., 0])
    kind = torch.stack(gains, dim=-1).argmax(dim=-1)
    strength = torch.stack(strengths, dim=-1).gather(-1, kind[..., None])[..., 0]
    return torch.where(strength > _FAINTEST, kind + 1, 0)


def _mark_templates(is_bar: bool, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The dot or the bar with soft edges, at every shift, [shifts, h, w]."""
    bar = torch.tensor(is_bar, device=x.device)
    places = [(x - dx, y - dy) for dx in _SHIFTS for dy in _SHIFTS]
    return coverage(torch.stack([mark_distance(bar, *at) for at in places]), 0.6)
