"""The picture of a scene: torch operations only, in the same way on every device."""

from __future__ import annotations

import math
from typing import Literal, overload

import torch

from gatekit_tinywan.world.attributes import RELATIONS
from gatekit_tinywan.world.layout import LAST, SIDE, SceneBatch
from gatekit_tinywan.world.shapes import coverage, distance, mark_distance

THING_WEIGHT, MARK_WEIGHT = 4.0, 12.0
WINDOW = 45.0  # no thing reaches farther than half of this from its centre


@overload
def render(
    scenes: SceneBatch,
    frames: int = ...,
    height: int = ...,
    width: int = ...,
    device: torch.device | str | None = ...,
    return_weights: Literal[False] = ...,
) -> torch.Tensor: ...


@overload
def render(
    scenes: SceneBatch,
    frames: int = ...,
    height: int = ...,
    width: int = ...,
    device: torch.device | str | None = ...,
    *,
    return_weights: Literal[True],
) -> tuple[torch.Tensor, torch.Tensor]: ...


def render(
    scenes: SceneBatch,
    frames: int = 25,
    height: int = 96,
    width: int = 96,
    device: torch.device | str | None = None,
    return_weights: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """Draws scenes as video; the whole story is told whatever the number of frames.

    Args:
        scenes: n scenes.
        frames: how many frames.
        height: of the picture.
        width: of the picture.
        device: where to draw; the scenes' own device without it.
        return_weights: also return how much each pixel matters.

    Returns:
        float32 [n, 3, T, H, W] in [0, 1]; with weights also [n, 1, T, H, W]: 1 on background,
        4 on things, 12 on marks.
    """
    if device is not None:
        scenes = scenes.to(device)
    where, n = scenes.centre.device, len(scenes)
    scale_x, scale_y = width / SIDE, height / SIDE
    x = ((torch.arange(width, device=where) + 0.5) / width).view(1, 1, 1, width)
    y = ((torch.arange(height, device=where) + 0.5) / height).view(1, 1, height, 1)
    # One canvas of four planes: RGB and the weight, so that what hides a thing hides its weight.
    canvas = torch.ones(n, 4, frames, height, width, device=where)
    canvas[:, :3] = _background(scenes, x, y)[:, None]
    canvas = canvas.view(n, 4, frames * height * width)

    path = positions(scenes, frames)
    rows = torch.arange(n, device=where)
    # Things apart never meet, so any order draws them.
    under = torch.where(scenes.codes.relation == RELATIONS.index("behind"), 0, 1)
    high, wide = (min(round(WINDOW * s) + 2, m) for s, m in ((scale_y, height), (scale_x, width)))
    for which in (under, 1 - under):
        # Only a window around the thing is drawn; it always lies within the picture.
        at = path[rows, which]
        corner_x = (at[..., 0] * scale_x - wide / 2).round().clamp(0, width - wide).long()
        corner_y = (at[..., 1] * scale_y - high / 2).round().clamp(0, height - high).long()
        column = corner_x[..., None] + torch.arange(wide, device=where)  # [n, T, w]
        row = corner_y[..., None] + torch.arange(high, device=where)
        dx = ((column + 0.5) / scale_x - at[..., 0, None])[:, :, None, :]
        dy = ((row + 0.5) / scale_y - at[..., 1, None])[:, :, :, None]
        first = torch.arange(frames, device=where).view(1, -1, 1, 1) * (height * width)
        index = first + row[..., None] * width + column[:, :, None, :]
        index = index.view(n, 1, -1).expand(-1, 4, -1)

        body, spot, paint, spot_paint = _thing(scenes, which, dx, dy, math.sqrt(scale_x * scale_y))
        inked = torch.lerp(paint, spot_paint, spot.reshape(n, 1, -1))
        seen = torch.lerp(canvas.gather(2, index), inked, body.reshape(n, 1, -1))
        canvas.scatter_(2, index, seen)
    canvas = canvas.view(n, 4, frames, height, width)
    video = canvas[:, :3].clamp(0.0, 1.0)
    return (video, canvas[:, 3:]) if return_weights else video


def _thing(
    scenes: SceneBatch, which: torch.Tensor, dx: torch.Tensor, dy: torch.Tensor, density: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """One thing a scene: coverage, and its mark's, [n, T, h, w]; their paints [n, 4, 1]."""
    rows = torch.arange(len(scenes), device=dx.device)

    def chosen(values: torch.Tensor) -> torch.Tensor:
        return values[rows, which].view(-1, 1, 1, 1)

    mark = chosen(scenes.codes.mark)
    body = coverage(distance(chosen(scenes.codes.shape), dx, dy, chosen(scenes.radius)), density)
    spot = coverage(mark_distance(mark % 2 == 0, dx, dy), density) * (mark > 0)
    paint = torch.nn.functional.pad(scenes.rgb[rows, which], (0, 1), value=THING_WEIGHT)
    white = (mark <= 2).to(paint.dtype).view(-1, 1).expand(-1, 3)
    spot_paint = torch.nn.functional.pad(white, (0, 1), value=MARK_WEIGHT)
    return body, spot, paint[..., None], spot_paint[..., None]


def positions(scenes: SceneBatch, frames: int = 25) -> torch.Tensor:
    """Centres in 96 x 96 units in every frame, [n, 2, T, (x, y)]."""
    span = torch.linspace(-LAST / 2, LAST / 2, frames, device=scenes.centre.device)
    return scenes.centre[:, :, None] + scenes.velocity[:, :, None] * span[:, None]


def _background(scenes: SceneBatch, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Grey level with its faint gradient and pattern, fixed in time: [n, 1, H, W]."""
    slope_x, slope_y = (scenes.gradient[:, i].view(-1, 1, 1, 1) for i in range(2))
    level = scenes.level.view(-1, 1, 1, 1) + slope_x * (x - 0.5) + slope_y * (y - 0.5)
    for wave in scenes.waves.unbind(1):
        across, down, phase, amplitude = (wave[:, i].view(-1, 1, 1, 1) for i in range(4))
        level = level + amplitude * torch.sin(2 * math.pi * (across * x + down * y) + phase)
    return level
