"""A video that a run starts from: opened, checked, and brought to the run's frames.

The rule in time: frame j of the run shows what the video shows j / fps after its first frame
(a frame is held until the next one); the rest is left out. Size is the family's to fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gatekit.embed import import_av
from gatekit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.family import VideoSpec

MAX_PIXELS = 100_000_000
NEAR = 1e-6  # seconds; times are fractions of a time base
BT709, UNSPECIFIED = 1, 2
_FILES = "give a video file, such as an .mp4"
_REMEDY = "give a video file, or a float tensor [F, H, W, 3] in [0, 1]"


def check_clip(video: Any, spec: VideoSpec) -> None:
    """Raise InputError unless ``video`` can be read and is long enough; decodes all of it."""
    if isinstance(video, str | Path):
        for _ in _shown(Path(video), spec):
            pass
    else:
        _checked(video, spec)


def clip_frames(video: Any, spec: VideoSpec) -> Iterator[Tensor]:
    """The run's frames, one after another: float32 ``[height, width, 3]`` in [0, 1].

    Args:
        video: A file, or a float tensor ``[F, H, W, 3]`` in [0, 1] at the run's fps.
        spec: How many frames, and how many a second. Their size is the video's own.

    Raises:
        InputError: No readable video, or one that is too short.
    """
    import torch

    if not isinstance(video, str | Path):
        for frame in _checked(video, spec)[: spec.frames]:
            yield frame.float().clamp(0.0, 1.0)
        return
    convert = _Converter()
    before: tuple[Any, Any] | None = None
    for frame in _shown(Path(video), spec):
        if before is None or before[0] is not frame:
            before = frame, torch.from_numpy(convert(frame)).float() / 255.0  # pyright: ignore[reportUnknownMemberType]
        yield before[1]


def _checked(video: Any, spec: VideoSpec) -> Any:
    import torch

    shape = tuple(video.shape) if isinstance(video, torch.Tensor) else ()
    if len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise InputError("not a video", value=list(shape) or type(video).__name__, remedy=_REMEDY)
    if shape[0] < spec.frames:
        raise _too_short(shape[0], spec, None)
    low, high = float(video.min()), float(video.max())
    if not (-1e-3 <= low <= high <= 1.0 + 1e-3):
        raise InputError("video values must be in [0, 1]", value=[low, high], remedy=_REMEDY)
    return video


def _too_short(found: int, spec: VideoSpec, where: str | None) -> InputError:
    return InputError(
        f"this video lasts for {found} frames at {spec.fps:g} a second, the run has {spec.frames}",
        where=where,
        remedy="give a longer video, or fewer frames with --set video.frames=N",
    )


def _shown(path: Path, spec: VideoSpec) -> Iterator[Any]:
    """What is shown at each of the run's times, as PyAV's frames."""
    av = import_av()
    if not path.is_file():
        message = "a folder, where a video was expected" if path.is_dir() else "no such video"
        raise InputError(message, where=str(path), remedy="check the path")
    done = 0
    try:
        for held, until in _held(av, path):
            while done < spec.frames and done / spec.fps < until - NEAR:
                yield held
                done += 1
            if done == spec.frames:
                return
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        raise InputError("no readable video", where=str(path), remedy=_FILES) from exc
    raise _too_short(done, spec, str(path))


def _held(av: Any, path: Path) -> Iterator[tuple[Any, float]]:
    """Each frame, and the second until which it is shown, counted from the first."""
    # Decoders have the limit too: they begin while the file is opened, and sizes change within it.
    limits = {"max_pixels": str(MAX_PIXELS)}
    with av.open(str(path), options={"protocol_whitelist": "file", **limits}) as container:
        if not container.streams.video:
            raise InputError("no video in this file", where=str(path), remedy=_FILES)
        stream = container.streams.video[0]
        size = stream.codec_context.width, stream.codec_context.height
        if size[0] * size[1] > MAX_PIXELS:
            raise InputError(
                f"frames of more than {MAX_PIXELS // 1_000_000} million pixels",
                where=str(path),
                value=f"{size[0]}x{size[1]}",
                remedy="scale the video down",
            )
        stream.codec_context.options = limits
        rate = float(stream.average_rate or 0) or 25.0
        held: Any = None
        start = time = 0.0
        frame: Any
        for number, frame in enumerate(container.decode(stream)):
            at: float = frame.time if frame.time is not None else number / rate
            if held is None:
                start = at
            else:
                yield held, at - start
            held, time = frame, at - start
        if held is not None:
            yield held, time + 1.0 / rate


class _Converter:
    """Frames to uint8 RGB ``[height, width, 3]``, upright, to the same bits on every machine.

    libswscale does so only where it is told to be exact. What a file does not say of its colours
    is BT.709 from 720 lines on, else BT.601, as players have it.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._made_for: tuple[Any, ...] = ()

    def __call__(self, frame: Any) -> Any:
        import numpy

        kind = (frame.format.name, frame.width, frame.height, int(frame.colorspace))
        if kind != self._made_for:
            self._graph, self._made_for = _graph(frame), kind
        self._graph.push(frame)
        pixels: Any = self._graph.pull().to_ndarray()
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return numpy.ascontiguousarray(numpy.rot90(pixels, turns))


def _graph(frame: Any) -> Any:
    from fractions import Fraction

    av = import_av()
    matrix = "auto"
    if int(frame.colorspace) == UNSPECIFIED:
        matrix = "bt709" if frame.height >= 720 else "bt601"
    graph: Any = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format,
        time_base=frame.time_base or Fraction(1, 25),
    )
    exact = "bicubic+accurate_rnd+bitexact+full_chroma_int+full_chroma_inp"
    scale = graph.add("scale", f"flags={exact}:in_color_matrix={matrix}")
    plain, sink = graph.add("format", "rgb24"), graph.add("buffersink")
    graph.link_nodes(source, scale, plain, sink).configure()
    return graph
