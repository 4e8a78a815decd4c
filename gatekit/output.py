"""Files that are there whole or not at all, and videos as H.264 in mp4."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.embed import KEY, import_av
from gatekit.errors import InputError, OutputError

if TYPE_CHECKING:
    from torch import Tensor

CRF = 12
BT709 = 1
# BT.709 in limited range, times 2^14. Each row of chroma sums to 0, so grey stays grey.
FRACTION = 14
LUMA = (2991, 10064, 1016)
BLUE = (-1649, -5547, 7196)
RED = (7196, -6536, -660)


def write_atomic(path: Path, data: bytes, remedy: str | None = None) -> Path:
    """Write a file under a temporary name beside it, then rename it.

    Raises:
        OutputError: Nothing is left under ``path`` (or what was there before stays).
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise cannot_write(path, exc, remedy) from exc
    return path


def cannot_write(path: Path, exc: OSError, remedy: str | None = None) -> OutputError:
    """The error for a file or folder that could not be written."""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    otherwise = "choose another place with -o"
    return OutputError(
        f"cannot write: {exc.strerror or exc}",
        where=str(path),
        remedy=remedy or (f"free space there, or {otherwise}" if full else otherwise),
    )


def check_target(path: str | Path) -> Path:
    """Where a video is to be written, checked before anything is computed.

    Raises:
        InputError: Not an .mp4, a folder, or PyAV is missing.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError(
            "videos are written as .mp4",
            where=str(path),
            remedy=f"use {path.with_suffix('.mp4').name}",
        )
    if path.is_dir():
        raise InputError("this is a folder", where=str(path), remedy="name a file in it")
    import_av()
    return path


def make_folder(path: Path) -> Path:
    """Create a folder and its parents. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise cannot_write(path, exc) from exc
    return path


def encode_mp4(video: Tensor, fps: float, comment: str = "") -> bytes:
    """A video as the bytes of an mp4: H.264, yuv420p, BT.709; equal videos give equal bytes.

    Args:
        video: float32 ``[frames, height, width, 3]`` in [0, 1]; height and width even.
        fps: Frames a second.
        comment: Text for the file's metadata.

    Raises:
        InputError: PyAV is missing, or the size is odd.
    """
    av = import_av()
    frames, height, width, _ = video.shape
    if frames == 0 or height % 2 or width % 2:
        raise InputError(
            "H.264 in yuv420p needs frames of even width and height",
            value=f"{width}x{height}, {frames} frames",
            remedy="make one pixel more or less each way",
        )
    pixels: Any = (video.clamp(0, 1) * 255.0).round().byte().cpu().numpy()
    planes = to_yuv420(pixels)
    buffer = io.BytesIO()
    # bitexact keeps library versions and dates out. x264's result depends on the number of
    # threads, and without cpu-independent on the alignment of memory.
    options = {"fflags": "+bitexact"}
    with av.open(buffer, "w", format="mp4", options=options) as container:
        if comment:
            container.metadata[KEY] = comment
        rate = Fraction(fps).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / rate
        stream.options = {
            "crf": str(CRF),
            "preset": "medium",
            "threads": "1",
            "x264-params": "cpu-independent=1",
        }
        context = stream.codec_context
        context.thread_count = 1
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = 1
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(planes[index], format="yuv420p")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def to_yuv420(pixels: Any) -> Any:
    """RGB to the planes of yuv420p: BT.709, limited range, chroma sited left as H.264 has it.

    In integers, so that every machine gives the same bytes; libswscale's rounding depends on
    how memory happens to be aligned.

    Args:
        pixels: uint8 ``[frames, height, width, 3]``, height and width even.

    Returns:
        uint8 ``[frames, height * 3 / 2, width]``: Y, then U, then V.
    """
    import numpy

    frames, height, width, _ = pixels.shape
    size = height * width
    planes: Any = numpy.empty((frames, size * 3 // 2), dtype=numpy.uint8)
    half = 1 << (FRACTION - 1)
    for frame, out in zip(pixels, planes, strict=True):
        rgb: Any = frame.astype(numpy.int32)
        out[:size] = (((rgb @ numpy.array(LUMA, numpy.int32) + half) >> FRACTION) + 16).ravel()
        # Over the columns 1 2 1 around each even one, over the rows the mean of two.
        left = numpy.concatenate([rgb[:, :1], rgb[:, 1:-1:2]], axis=1)
        columns = left + 2 * rgb[:, ::2] + rgb[:, 1::2]
        eighths = columns[::2] + columns[1::2]
        for start, row in ((size, BLUE), (size * 5 // 4, RED)):
            chroma = ((eighths @ numpy.array(row, numpy.int32) + 8 * half) >> (FRACTION + 3)) + 128
            out[start : start + size // 4] = chroma.ravel()
    return planes.reshape(frames, height * 3 // 2, width)


def free_name(path: Path, taken: Callable[[Path], bool] = Path.exists) -> Path:
    """``path``, or ``path-2``, ``path-3``, ... where that is taken."""
    candidate, number = path, 2
    while taken(candidate):
        candidate, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return candidate
