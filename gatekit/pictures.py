"""Videos as animated WebP, and frames as PNG, both by Pillow, one frame at a time."""

from __future__ import annotations

import io
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from gatekit.embed import DESCRIPTION, KEY, import_pillow
from gatekit.output import pixels

if TYPE_CHECKING:
    from torch import Tensor

QUALITY = 90
DEFLATE = 1  # of 9; a level more saves a few per cent and takes five times as long


def encode_png(frame: Tensor, comment: str = "") -> bytes:
    """A frame float32 ``[height, width, 3]`` in [0, 1] as the bytes of a PNG.

    Raises:
        InputError: Pillow is missing.
    """
    image = import_pillow()
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    if comment:
        text.add_itxt(KEY, comment)
    buffer = io.BytesIO()
    image.fromarray(pixels(frame)).save(buffer, "PNG", pnginfo=text, compress_level=DEFLATE)
    return buffer.getvalue()


def encode_webp(video: Tensor, fps: float, comment: str = "") -> bytes:
    """A video as the bytes of an animated WebP that repeats without end.

    WebP times frames in whole milliseconds: frame i ends at the millisecond nearest to
    1000 (i + 1) / fps, so that rounding does not add up.

    Args:
        video: float32 ``[frames, height, width, 3]`` in [0, 1].
        fps: Frames a second.
        comment: Text for the file's metadata (EXIF ImageDescription, UTF-8).

    Raises:
        InputError: Pillow is missing.
    """
    image = import_pillow()
    ends = [round(1000.0 * i / fps) for i in range(len(video) + 1)]
    exif = image.Exif()
    if comment:
        exif[DESCRIPTION] = comment.encode()
    buffer = io.BytesIO()
    _stream(video).save(
        buffer,
        "WEBP",
        save_all=True,
        duration=[b - a for a, b in pairwise(ends)],
        loop=0,
        quality=QUALITY,
        exif=exif.tobytes() if comment else b"",
    )
    return buffer.getvalue()


def _stream(video: Tensor) -> Any:
    """The video as a picture of many frames, as Pillow has them: each made when it is sought."""
    image = import_pillow()
    base: Any = image.Image

    class Stream(base):
        n_frames = len(video)
        is_animated = n_frames > 1

        def __init__(self) -> None:
            base.__init__(self)
            self._mode, self._size = "RGB", (video.shape[2], video.shape[1])
            self.seek(0)

        def seek(self, frame: int) -> None:
            self.im, self._at = image.fromarray(pixels(video[frame])).im, frame

        def tell(self) -> int:
            return self._at

    return Stream()
