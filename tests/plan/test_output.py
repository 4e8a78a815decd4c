"""Videos: equal bytes for equal frames, faithful colours, nothing half-written."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from gatekit import InputError, OutputError, ScheduleError
from gatekit.embed import Carried, read_embedded
from gatekit.mp4 import encode_mp4, to_yuv420
from gatekit.output import check_out, free_name, make_folder, write_atomic

av = pytest.importorskip("av")


def gradient(frames: int = 5, height: int = 48, width: int = 64) -> torch.Tensor:
    y = torch.linspace(0, 1, height)[None, :, None, None].expand(frames, height, width, 1)
    x = torch.linspace(0, 1, width)[None, None, :, None].expand(frames, height, width, 1)
    t = torch.linspace(0, 1, frames)[:, None, None, None].expand(frames, height, width, 1)
    return torch.cat([x, y, t], dim=-1)


def decode(path) -> tuple[torch.Tensor, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [
            torch.from_numpy(f.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray())
            for f in container.decode(stream)
        ]
        return torch.stack(frames).float() / 255, float(stream.average_rate)


def test_equal_videos_give_equal_bytes():
    noise = torch.rand(3, 48, 64, 3, generator=torch.Generator().manual_seed(0))
    for video in (gradient(), noise):
        assert len({encode_mp4(video.clone(), 16, "x") for _ in range(20)}) == 1
    assert encode_mp4(gradient(), 16, "x") != encode_mp4(gradient(), 16, "y")


@pytest.mark.parametrize("fps", [16, 24, 29.97])
def test_frames_colours_and_rate_survive(tmp_path, fps):
    video = gradient()
    path = write_atomic(tmp_path / "v.mp4", encode_mp4(video, fps))
    back, rate = decode(path)
    assert back.shape == video.shape
    assert rate == pytest.approx(fps, rel=1e-4)
    assert float((back - video).abs().mean()) < 0.02
    assert float((back - video).mean(dim=(0, 1, 2)).abs().max()) < 0.02


@pytest.mark.parametrize("colour", [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (1, 0, 0), (0, 0.4, 1)])
def test_flat_colours_are_exact_to_rounding(colour):
    height, width = 6, 10
    frame = torch.tensor(colour).expand(1, height, width, 3)
    planes = to_yuv420((frame[0] * 255).round().byte().numpy()).reshape(-1).astype(float)
    y, u, v = planes[:60], planes[60:75], planes[75:]
    assert [len(set(plane)) for plane in (y, u, v)] == [1, 1, 1]
    luma, blue, red = (y[0] - 16) / 219, (u[0] - 128) / 224, (v[0] - 128) / 224
    r, b = luma + 1.5748 * red, luma + 1.8556 * blue
    g = (luma - 0.2126 * r - 0.0722 * b) / 0.7152
    assert [r, g, b] == pytest.approx(colour, abs=0.01)


def test_odd_sizes_are_refused():
    with pytest.raises(InputError, match="even width and height"):
        encode_mp4(gradient(width=63), 16)


def test_a_video_carries_its_schedule_without_folders(tmp_path):
    image = {"file": "/home/somebody/pictures/cat.png", "sha256": "ab"}
    inputs = {"prompt": "a »ball« 😀 " + "x" * 5000, "seed": 3, "image": image}
    carried = Carried('{"name": "n"}', inputs, {"a.num": "ff"})
    path = write_atomic(tmp_path / "v.mp4", encode_mp4(gradient(), 16, carried.dump()))
    assert b"somebody" not in path.read_bytes()
    back = read_embedded(path)
    assert back.schedule == '{"name": "n"}'
    assert back.inputs["prompt"] == inputs["prompt"]
    assert back.inputs["image"] == {"file": str(tmp_path / "cat.png"), "sha256": "ab"}
    assert back.folder == tmp_path
    assert back.weights == {"a.num": "ff"}


@pytest.mark.parametrize("comment", ["", "a holiday video", "{}", '{"format": "other"}'])
def test_a_video_of_another_program(tmp_path, comment):
    path = write_atomic(tmp_path / "v.mp4", encode_mp4(gradient(), 16, comment))
    with pytest.raises(ScheduleError, match="this file carries no schedule"):
        read_embedded(path)


def test_no_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video at all")
    with pytest.raises(ScheduleError, match=r"no readable mp4; give a result .* wrote$"):
        read_embedded(tmp_path / "v.mp4")
    with pytest.raises(ScheduleError, match="no such video"):
        read_embedded(tmp_path / "w.mp4")


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "v.mp4"
    path.write_bytes(b"before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="cannot write: No space left on device; free space"):
        write_atomic(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_the_place_of_a_result(tmp_path):
    there = tmp_path / "a.json"
    there.touch()
    check_out(there)
    check_out(tmp_path / "b.json", new=True)
    for path, new, told in (
        (there, True, "--keep: this file exists"),
        (tmp_path, False, "--keep: a folder of this name"),
        (tmp_path / "gone" / "a.json", False, "--keep: no such folder"),
    ):
        with pytest.raises(InputError, match=told):
            check_out(path, "--keep", new=new)


def test_a_folder_that_may_not_be_written_to_is_told_before_anything(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("os.access", lambda path, mode: asked.append((path, mode)))
    with pytest.raises(InputError, match=r"--keep: this folder may not be written to .*; name"):
        check_out(tmp_path / "a.json", "--keep")
    assert asked == [(tmp_path, os.W_OK | os.X_OK)]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR])
def test_a_folder_that_may_not_be_made_is_wrong_input(tmp_path, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, "why")

    monkeypatch.setattr("pathlib.Path.mkdir", refused)
    with pytest.raises(InputError, match="cannot write: why; choose another place with -o"):
        make_folder(tmp_path / "a")


def test_a_free_name(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a-2.mp4").touch()
    assert free_name(tmp_path / "a.mp4") == tmp_path / "a-3.mp4"
    assert free_name(tmp_path / "b.mp4") == tmp_path / "b.mp4"
