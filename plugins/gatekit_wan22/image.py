"""An image for a frame: opened, checked, and fitted to the video's size.

The rule: the image is scaled, keeping its proportions, until it covers the frame (bicubic,
antialiased), and what stands over is cut off evenly on both sides. What is transparent is put on
black: the colours that a file has under it are leftovers that no viewer shows.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit import InputError

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("gatekit.wan22")
# Pixels of an image, before any of it is decoded: what is larger is a mistake or an attack.
MAX_PIXELS = 100_000_000
# What photographs and frames come as. Pillow knows some forty more, of which EPS is a program that
# it has Ghostscript run.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")
_FILES = "give a PNG, JPEG or WebP file"
_REMEDY = f"{_FILES}, a PIL image, or a float tensor [3, H, W] in [0, 1]"


def check_image(image: Any) -> None:
    """Raise InputError unless ``image`` can be opened and read to its end."""
    if isinstance(image, str | Path):
        _open(Path(image))
    elif hasattr(image, "getbands"):
        _rgb(image)
    else:
        _check_tensor(image)


def _rgb(image: Any) -> tuple[Any, bool]:
    """As ``_on_black``, of a PIL image; it may be backed by a file that is damaged."""
    _check_size(image.width, image.height, getattr(image, "filename", None) or None)
    try:
        return _on_black(image)
    except Exception as error:  # Pillow's decoders raise nearly everything
        raise InputError(
            "not a readable image",
            where=getattr(image, "filename", None) or None,
            remedy=_REMEDY,
        ) from error


def _on_black(image: Any) -> tuple[Any, bool]:
    """A PIL image read to its end, as RGB; and whether any of it was transparent."""
    from PIL import Image

    palette = getattr(image.palette, "mode", "")
    if not set("Aa") & {*image.getbands(), *palette} and "transparency" not in image.info:
        return image.convert("RGB"), False
    if image.mode == "La":  # premultiplied grey, which has no way to RGBA of its own
        image = image.convert("LA")
    seen = image.convert("RGBA")
    if seen.getextrema()[3][0] == 255:
        return seen.convert("RGB"), False
    black = Image.new("RGBA", seen.size, (0, 0, 0, 255))
    black.alpha_composite(seen)
    return black.convert("RGB"), True


def _open(path: Path) -> tuple[Any, bool]:
    """As ``_on_black``, of a file, turned as its EXIF data say."""
    import warnings

    from PIL import Image, ImageOps

    if not path.is_file():
        message = "a folder, where an image was expected" if path.is_dir() else "no such image"
        raise InputError(message, where=str(path), remedy="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_formats()) as image:
                _check_size(image.width, image.height, str(path))
                return _on_black(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:  # Pillow's own limit, past ours
        raise _too_large("Pillow's limit", str(path)) from error
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything
        raise InputError("not a readable image", where=str(path), remedy=_FILES) from error


def _formats() -> list[str]:
    """Those of ``FORMATS`` that this Pillow reads."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(width: int, height: int, where: str | None) -> None:
    """Raise InputError for an image of more pixels than any video has use for."""
    if width * height > MAX_PIXELS:
        raise _too_large(f"{width}x{height}", where)


def _too_large(size: str, where: str | None) -> InputError:
    return InputError(
        f"this image has more than {MAX_PIXELS // 1_000_000} million pixels",
        where=where,
        value=size,
        remedy="scale it down: the video needs no more pixels than its own",
    )


def _check_tensor(image: Any) -> None:
    shape = tuple(getattr(image, "shape", ()))
    if len(shape) != 3 or shape[0] != 3 or min(shape) < 1:
        raise InputError("not an image", value=list(shape) or type(image).__name__, remedy=_REMEDY)
    low, high = float(image.min()), float(image.max())
    if not (-1e-3 <= low <= high <= 1.0 + 1e-3):
        raise InputError("image values must be in [0, 1]", value=[low, high], remedy=_REMEDY)


def to_tensor(image: Any) -> Tensor:
    """Any accepted image as a float32 tensor ``[3, H, W]`` in [0, 1].

    Raises:
        InputError: It is none.
    """
    import numpy as np
    import torch

    is_file = isinstance(image, str | Path)
    if is_file or hasattr(image, "getbands"):
        opened, transparent = _open(Path(image)) if is_file else _rgb(image)
        if transparent:
            log.warning("%s is transparent in parts: they are black", image if is_file else "image")
        pixels = np.array(opened, dtype=np.uint8)
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0
    _check_tensor(image)
    return torch.as_tensor(image, dtype=torch.float32).clamp(0.0, 1.0)


def tell_cut(image: Tensor, name: str, width: int, height: int) -> None:
    """Log what ``fit`` cuts off of an image ``[3, H, W]``, where that is a hundredth or more."""
    _, h, w = image.shape
    kept = min(w * height / (h * width), h * width / (w * height))
    if kept <= 0.99:
        side = "width" if w * height > h * width else "height"
        log.info(
            "%s is %dx%d, the video %dx%d: %.0f %% of its %s is cut off, evenly on both sides",
            *(name, w, h, width, height, 100.0 * (1.0 - kept), side),
        )


def fit(image: Tensor, width: int, height: int) -> Tensor:
    """``[3, H, W]`` -> ``[3, height, width]``: scaled to cover, then centre-cropped."""
    import torch

    _, h, w = image.shape
    scale = max(width / w, height / h)
    size = (max(height, round(h * scale)), max(width, round(w * scale)))
    if size != (h, w):
        image = torch.nn.functional.interpolate(
            image[None], size=size, mode="bicubic", antialias=True, align_corners=False
        )[0].clamp(0.0, 1.0)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return image[:, top : top + height, left : left + width]
