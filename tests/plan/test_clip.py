"""Videos that are read: which frames, which colours, the same bits each time."""

from __future__ import annotations

import io

import pytest
import torch

from gatekit import InputError, ScheduleError, VideoSpec, clip
from gatekit.clip import check_clip, clip_frames
from gatekit.embed import read_embedded
from gatekit.mp4 import encode_mp4

av = pytest.importorskip("av")


def greys(frames, height=32, width=48):
    """Frame i is grey of level i / frames: told apart after compression."""
    levels = torch.arange(frames) / frames
    return levels[:, None, None, None].repeat(1, height, width, 3)


def written(path, video, fps):
    path.write_bytes(encode_mp4(video, fps))
    return path


def spec(frames, fps, size=32):
    return VideoSpec(size, size, frames, fps)


@pytest.mark.parametrize(
    ("source", "wanted"), [(16, 16), (24, 16), (30, 16), (16, 24), (8, 24), (25, 29.97)]
)
def test_frame_j_is_what_is_shown_at_j_over_fps(tmp_path, source, wanted):
    total = 30
    path = written(tmp_path / "v.mp4", greys(total), source)
    frames = int(total / source * wanted) - 1
    shown = [round(float(f.mean()) * total) for f in clip_frames(path, spec(frames, wanted))]
    assert shown == [int(j / wanted * source + 1e-6) for j in range(frames)]
    check_clip(path, spec(frames, wanted))
    with pytest.raises(InputError, match=r"this video lasts for \d+ frames"):
        check_clip(path, spec(frames + 3, wanted))


def test_colours_come_back(tmp_path):
    video = torch.zeros(2, 32, 48, 3)
    video[:, :, :16, 0] = video[:, :, 16:32, 1] = video[:, :, 32:, 2] = 0.8
    path = written(tmp_path / "v.mp4", video, 16)
    back = torch.stack([*clip_frames(path, spec(2, 16))])
    assert back.shape == video.shape and back.dtype == torch.float32
    for centre in (8, 24, 40):
        assert torch.allclose(back[:, :, centre], video[:, :, centre], atol=0.02)


def test_the_same_bits_each_time(tmp_path):
    noise = torch.rand(3, 32, 48, 3, generator=torch.Generator().manual_seed(0))
    path = written(tmp_path / "v.mp4", noise, 16)
    kept = []  # hold memory, so that frames lie elsewhere each time
    for i in range(10):
        kept.append((torch.empty(1000 + 7 * i), [*clip_frames(path, spec(3, 16))]))
    assert all(torch.equal(a, b) for _, f in kept for a, b in zip(f, kept[0][1], strict=True))


def test_tensors():
    video = greys(5)
    assert torch.equal(torch.stack([*clip_frames(video, spec(3, 16))]), video[:3])
    for bad, match in (
        (video[:2], "lasts for 2 frames"),
        (video.permute(0, 3, 1, 2), "not a video"),
        (video * 255, r"in \[0, 1\]"),
        (7, "not a video"),
        (video.numpy(), "not a video"),
    ):
        with pytest.raises(InputError, match=match):
            check_clip(bad, spec(3, 16))


def test_what_is_no_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(
        InputError, match=r"no readable video; give a video file, such as an \.mp4$"
    ):
        check_clip(tmp_path / "v.mp4", spec(1, 16))
    with pytest.raises(InputError, match="a folder"):
        check_clip(tmp_path, spec(1, 16))
    whole = written(tmp_path / "w.mp4", greys(9), 16).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"no readable video; give a video file, such as an \.mp4$"
    ):
        check_clip(tmp_path / "cut.mp4", spec(9, 16))


def annexb(width, height, frames):
    """H.264 without a container, its size at every key frame."""
    stream = io.BytesIO()
    with av.open(stream, "w", format="h264") as container:
        made = container.add_stream("libx264", rate=16)
        made.width, made.height, made.pix_fmt = width, height, "yuv420p"
        made.options = {"preset": "ultrafast", "x264-params": "repeat-headers=1"}
        for i in range(frames):
            frame = av.VideoFrame(width, height, "yuv420p")
            frame.pts = i
            container.mux(made.encode(frame))
        container.mux(made.encode(None))
    return stream.getvalue()


def test_a_video_that_grows_within_itself_is_not_decoded(tmp_path, monkeypatch):
    """Small for longer than what is looked at when it is opened, then past the limit."""
    monkeypatch.setattr(clip, "MAX_PIXELS", 64 * 64)
    file = tmp_path / "v.h264"
    small = annexb(64, 64, 400)
    file.write_bytes(small)
    check_clip(file, spec(390, 25))
    file.write_bytes(small + annexb(512, 512, 20))
    with pytest.raises(InputError, match=r"no readable video|million pixels"):
        check_clip(file, spec(410, 25))


def test_no_decoder_begins_on_a_video_whose_metadata_are_read(tmp_path, monkeypatch):
    """FFmpeg decodes to look at the streams of what it opens, whatever their size."""
    opened, path = [], written(tmp_path / "v.mp4", greys(5), 16)
    container = av.open

    def watched(*args, **kwargs):
        opened.append(kwargs.get("options", {}))
        return container(*args, **kwargs)

    monkeypatch.setattr(av, "open", watched)
    with pytest.raises(ScheduleError, match="carries no schedule"):
        read_embedded(path)
    assert opened[0]["max_pixels"] == "1"
