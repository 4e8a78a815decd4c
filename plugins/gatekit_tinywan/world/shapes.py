"""Signed distances of the shapes and marks, and their anti-aliased coverage.

All shapes of one equivalent radius r have the area pi r^2, so that the size word says nothing
about the shape. Each is centred on its centroid, where its mark sits.
"""

from __future__ import annotations

import math

import torch

SQUARE_HALF = math.sqrt(math.pi) / 2  # half the side, for r = 1
TRIANGLE_IN = math.sqrt(math.pi / (3 * math.sqrt(3)))  # radius of the inscribed circle
ARM = 0.36  # width of a cross's arms over their length: of small ones as wide as a latent's cell
CROSS_HALF = math.sqrt(math.pi / (2 * ARM - ARM * ARM)) / 2  # half the length of an arm
DOT_RADIUS = 3.0
BAR_HALF = (6.5, 1.6)

# Reach of each shape beyond its centre for r = 1: left and right, up, down.
REACH = (
    (1.0, 1.0, 1.0),
    (SQUARE_HALF, SQUARE_HALF, SQUARE_HALF),
    (TRIANGLE_IN * math.sqrt(3), 2 * TRIANGLE_IN, TRIANGLE_IN),
    (CROSS_HALF, CROSS_HALF, CROSS_HALF),
)


def distances(x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor) -> list[torch.Tensor]:
    """Signed distances (negative inside) of the four shapes at offsets (x, y) from the centre.

    The arguments broadcast; the results are in the order of `attributes.SHAPES`.
    """
    ax, ay = x.abs(), y.abs()
    circle = torch.sqrt(x * x + y * y) - radius
    square = torch.maximum(ax, ay) - SQUARE_HALF * radius
    # Apex up: the base below, and two sides whose normals stand 30 degrees above the horizontal.
    triangle = torch.maximum(y, ax * (math.sqrt(3) / 2) - y * 0.5) - TRIANGLE_IN * radius
    half = CROSS_HALF * radius
    lying = torch.maximum(ax - half, ay - half * ARM)
    standing = torch.maximum(ax - half * ARM, ay - half)
    return [circle, square, triangle, torch.minimum(lying, standing)]


def distance(
    shape: torch.Tensor, x: torch.Tensor, y: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """Signed distance of the shape with the code `shape`; all arguments broadcast."""
    circle, square, triangle, cross = distances(x, y, radius)
    return torch.where(
        shape < 2,
        torch.where(shape == 0, circle, square),
        torch.where(shape == 2, triangle, cross),
    )


def mark_distance(is_bar: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance of the dot, or of the lying bar, at offsets (x, y) from its centre."""
    dot = torch.sqrt(x * x + y * y) - DOT_RADIUS
    bar = torch.maximum(x.abs() - BAR_HALF[0], y.abs() - BAR_HALF[1])
    return torch.where(is_bar, bar, dot)


def coverage(signed_distance: torch.Tensor, pixels_per_unit: float = 1.0) -> torch.Tensor:
    """Part of a pixel that lies inside, to first order in the distance of its centre."""
    return (0.5 - signed_distance * pixels_per_unit).clamp(0.0, 1.0)
