"""Videos as H.264 in mp4: equal frames give equal bytes."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from gatekit.embed import KEY, import_av
from gatekit.errors import InputError
from gatekit.output import pixels

if TYPE_CHECKING:
    from torch import Tensor

CRF = 12
BT709 = 1
# BT.709 in limited range, times 2^14. Each row of chroma sums to 0, so grey stays grey.
FRACTION = 14
LUMA = (2991, 10064, 1016)
BLUE = (-1649, -5547, 7196)
RED = (7196, -6536, -660)


def encode_mp4(video: Tensor, fps: float, comment: str = "") -> bytes:
    """A video as the bytes of an mp4: H.264, yuv420p, BT.709; equal videos give equal bytes.

    One frame at a time is converted.

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
            planes = to_yuv420(pixels(video[index]))
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def to_yuv420(frame: Any) -> Any:
    """RGB to the planes of yuv420p: BT.709, limited range, chroma sited left as H.264 has it.

    In integers, so that every machine gives the same bytes; libswscale's rounding depends on
    how memory happens to be aligned.

    Args:
        frame: uint8 ``[height, width, 3]``, height and width even.

    Returns:
        uint8 ``[height * 3 / 2, width]``: Y, then U, then V.
    """
    import numpy

    height, width, _ = frame.shape
    size = height * width
    out: Any = numpy.empty(size * 3 // 2, dtype=numpy.uint8)
    half = 1 << (FRACTION - 1)
    rgb: Any = frame.astype(numpy.int32)
    out[:size] = (((rgb @ numpy.array(LUMA, numpy.int32) + half) >> FRACTION) + 16).ravel()
    # Over the columns 1 2 1 around each even one, over the rows the mean of two.
    left = numpy.concatenate([rgb[:, :1], rgb[:, 1:-1:2]], axis=1)
    columns = left + 2 * rgb[:, ::2] + rgb[:, 1::2]
    eighths = columns[::2] + columns[1::2]
    for start, row in ((size, BLUE), (size * 5 // 4, RED)):
        chroma = ((eighths @ numpy.array(row, numpy.int32) + 8 * half) >> (FRACTION + 3)) + 128
        out[start : start + size // 4] = chroma.ravel()
    return out.reshape(height * 3 // 2, width)
