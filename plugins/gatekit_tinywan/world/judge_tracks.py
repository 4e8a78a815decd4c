"""Where the two asked-for colours are in every frame, and the straight paths through them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from gatekit_tinywan.world.layout import LAST, SATURATION, SIDE, VALUE

CHROMA = SATURATION * VALUE  # length of the chroma vector of a thing's colour
_NARROW = 0.36  # tangent of the hue angle up to which a colour counts in full


def chroma(video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two chroma coordinates of RGB on axis 1; the hue is their angle, red at 0."""
    red, green, blue = video.unbind(1)
    return red - 0.5 * (green + blue), (math.sqrt(3) / 2) * (green - blue)


def soft(share: torch.Tensor) -> torch.Tensor:
    """A share of a pixel made steeper about one half, so that noise adds no area."""
    return (2 * share - 0.5).clamp_(0.0, 1.0)


def colour_masks(video: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """How much of each pixel has the asked-for colours.

    Args:
        video: RGB on axis 1, [n, 3, ...].
        colour: codes, [n, 2].

    Returns:
        [n, 2, ...] in [0, 1]. A hue counts in full up to 20 degrees from the colour's, half at 30,
        and not at all from 40.
    """
    u, v = (c.unsqueeze(1) for c in chroma(video))
    angle = (colour * (math.pi / 3)).view(*colour.shape, *(1,) * (u.dim() - 2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    along = u * cos + v * sin
    across = (v * cos - u * sin).abs_()
    return soft((along - 2 * (across - _NARROW * along).relu_()) / CHROMA)


@dataclass(frozen=True)
class Tracks:
    """Paths of the two things; lengths in pixels of a 96 x 96 picture."""

    place: torch.Tensor  # [n, 2, T, (x, y)] measured centroid
    fitted: torch.Tensor  # [n, 2, T, (x, y)] on the straight path
    velocity: torch.Tensor  # [n, 2, (x, y)] a frame of a 25-frame clip
    residual: torch.Tensor  # [n, 2] root mean square distance from the path, unhidden frames
    area: torch.Tensor  # [n, 2, T] near the path
    full: torch.Tensor  # [n, 2] area when nothing hides it
    whole: torch.Tensor  # [n, 2, T] 1 where the thing seems unhidden


def follow(masks: torch.Tensor) -> Tracks:
    """Tracks from masks [n, 2, T, 96, 96].

    A hidden thing's visible part has its centroid elsewhere, so only frames with nearly the full
    area count; other things of the same colour are left out by looking near the first path only.
    """
    frames = masks.shape[2]
    time = torch.linspace(-LAST / 2, LAST / 2, frames, device=masks.device)
    everywhere = torch.ones(*masks.shape[:3], int(SIDE), device=masks.device)
    area, place = _moments(masks, everywhere, everywhere)
    for _ in range(2):
        full = torch.quantile(area, 0.85, dim=-1)
        whole = (area > 0.92 * full[..., None]) & (area < 1.3 * full[..., None])
        whole = whole.float()
        start, velocity, residual = fit_line(time, place, whole)
        fitted = start[:, :, None] + velocity[:, :, None] * time[:, None]
        area, place = _moments(masks, *near(fitted, full))
    full = torch.quantile(area, 0.85, dim=-1)
    whole = ((area > 0.92 * full[..., None]) & (area < 1.3 * full[..., None])).float()
    start, velocity, residual = fit_line(time, place, whole)
    fitted = start[:, :, None] + velocity[:, :, None] * time[:, None]
    return Tracks(place, fitted, velocity, residual, area, full, whole)


def near(at: torch.Tensor, area: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns, each [n, 2, T, 96], of a box that holds a thing of that area."""
    half = 1.6 * (area / math.pi).clamp(min=1.0).sqrt() + 4.0
    line = torch.arange(int(SIDE), device=at.device) + 0.5
    inside = (line - at[..., None]).abs() < half[..., None, None, None]  # [n, 2, T, (x, y), 96]
    columns, rows = inside.float().unbind(-2)
    return rows, columns


def _moments(
    masks: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Area [n, 2, T] and centroid [n, 2, T, (x, y)] of what lies in the given rows and columns."""
    by_row = (masks @ columns[..., None])[..., 0] * rows
    by_column = (rows[..., None, :] @ masks)[..., 0, :] * columns
    line = torch.arange(masks.shape[-1], device=masks.device) + 0.5
    area = by_row.sum(-1)
    centroid = torch.stack([by_column @ line, by_row @ line], dim=-1)
    return area, centroid / area[..., None].clamp(min=1e-3)


def fit_line(
    time: torch.Tensor, place: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Straight path through places, by reweighted least squares with Cauchy weights.

    Args:
        time: [T].
        place: [..., T, 2].
        weight: [..., T], how much each place counts.

    Returns:
        The place at time 0 [..., 2], the velocity [..., 2] and the root mean square of the
        weighted distances [...].
    """
    start, velocity = _weighted_line(time, place, weight)
    for _ in range(5):
        square = _off(time, place, start, velocity)
        start, velocity = _weighted_line(time, place, weight / (1 + square))
    square = _off(time, place, start, velocity)
    mean = (weight * square).sum(-1) / weight.sum(-1).clamp(min=1e-6)
    return start, velocity, mean.sqrt()


def _weighted_line(
    time: torch.Tensor, place: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    total = weight.sum(-1, keepdim=True).clamp(min=1e-6)
    mean_time = (weight * time).sum(-1, keepdim=True) / total
    mean = (weight[..., None] * place).sum(-2) / total
    late = time - mean_time
    spread = (weight * late * late).sum(-1, keepdim=True).clamp(min=1e-6)
    pull = (weight * late)[..., None] * (place - mean[..., None, :])
    velocity = pull.sum(-2) / spread
    return mean - velocity * mean_time, velocity


def _off(
    time: torch.Tensor, place: torch.Tensor, start: torch.Tensor, velocity: torch.Tensor
) -> torch.Tensor:
    """Squared distance of each place from the path, [..., T]."""
    path = start[..., None, :] + velocity[..., None, :] * time[:, None]
    return (place - path).square().sum(-1)
