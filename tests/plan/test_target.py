"""What a result is written as: told from its name, whole or not at all, and what it carries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gatekit
from gatekit import InputError, Inputs, OutputError, load_schedule, resolve
from gatekit.embed import Carried, read_embedded
from gatekit.output import pixels
from gatekit.pictures import encode_png, encode_webp
from gatekit.target import Target

TEXT = Carried('{"name": "n"}', {"prompt": "a »ball« 😀", "seed": 3}, {"a.num": "ff"}).dump()


def moving(frames: int = 5, height: int = 48, width: int = 64) -> torch.Tensor:
    """A bright bar that moves right over a gradient."""
    video = torch.linspace(0, 0.6, height)[None, :, None, None].repeat(frames, 1, width, 3)
    for i in range(frames):
        video[i, :, 8 * i : 8 * i + 8, 0] = 1.0
    return video


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.mp4", "mp4"),
        ("a.WEBP", "webp"),
        ("a.png", "png"),
        ("a.safetensors", "latent"),
        ("a/", "frames"),
        ("a.mp4/", "frames"),
    ],
)
def test_a_name_says_what_is_written(name, kind):
    target = Target.of(name)
    assert target.kind == kind
    assert Target.of(str(target)) == target
    assert Target.of(str(target.absolute())).kind == kind


def test_names_that_say_nothing(tmp_path):
    for name in ("a", "a.gif", tmp_path / "a.avi"):
        with pytest.raises(InputError, match=r"use a\.mp4, or a/ for frames"):
            Target.of(name)
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(InputError, match="this is a folder"):
        Target.of(tmp_path / "b.mp4")
    for name in ("", ".", "./", "..", "../..", "/"):
        with pytest.raises(InputError, match="no place for a folder of frames"):
            Target.of(name)


def test_png_frames_are_exact_and_each_carries_the_schedule(tmp_path):
    video = moving()
    folder = Target.of(f"{tmp_path}/out/").check(5).write(video, 16, TEXT)
    names = sorted(p.name for p in folder.iterdir())
    assert names == [f"{i:04d}.png" for i in range(1, 6)]
    for frame, name in zip(video, names, strict=True):
        with Image.open(folder / name) as image:
            assert np.array_equal(np.asarray(image), pixels(frame))
    for path in (folder, folder / "0001.png", folder / "0005.png"):
        assert read_embedded(path).inputs == {"prompt": "a »ball« 😀", "seed": 3}
    again = Target.of(f"{tmp_path}/again/").write(video, 16, TEXT)
    assert [(again / n).read_bytes() for n in names] == [(folder / n).read_bytes() for n in names]


def test_numbered_pictures_and_one_alone(tmp_path):
    video = moving()
    target = Target.of(tmp_path / "out.png")
    assert target.check(5).write(video, 16, TEXT) == tmp_path / "out-0001.png"
    assert target.first(5) == str(tmp_path / "out-0001.png")
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"out-{i:04d}.png" for i in range(1, 6)]
    assert target.check(1).write(video[:1], 16, TEXT) == tmp_path / "out.png"
    assert (tmp_path / "out.png").read_bytes() == (tmp_path / "out-0001.png").read_bytes()
    with pytest.raises(InputError, match=r"out-0004.png: frames of a longer video are there"):
        target.check(3)


def test_a_folder_of_frames_is_replaced_and_one_of_other_things_is_not(tmp_path):
    name = f"{tmp_path}/out/"
    Target.of(name).check(5).write(moving(), 16, TEXT)
    Target.of(name).check(2).write(moving(2), 16, TEXT)
    assert len(list((tmp_path / "out").iterdir())) == 2
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds other things than frames.*'thesis.txt'"):
        Target.of(name).check(2)
    with pytest.raises(OutputError, match="the folder now holds thesis"):
        Target.of(name).write(moving(2), 16, TEXT)
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_link_to_a_folder_is_followed(tmp_path):
    (tmp_path / "disk" / "shots").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "shots")
    for frames in (2, 3):
        Target.of(f"{tmp_path}/out/").check(frames).write(moving(frames), 16, TEXT)
        assert len(list((tmp_path / "disk" / "shots").iterdir())) == frames
    assert (tmp_path / "out").is_symlink() and len(list(tmp_path.iterdir())) == 2
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["shots"]


@pytest.mark.parametrize("name", ["out/", "out.png", "out.webp", "out.mp4"])
def test_a_disk_that_fills_in_the_midst_leaves_what_was_there(tmp_path, monkeypatch, name):
    target = Target.of(f"{tmp_path}/{name}")
    target.write(moving(), 16, TEXT)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    synced = []

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) == (3 if target.kind in ("frames", "png") else 1):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="cannot write: No space left on device; free space"):
        target.write(moving().flip(0), 16, TEXT)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("fps", [16, 24, 29.97, 60])
def test_webp_keeps_frames_times_and_schedule(tmp_path, fps):
    video = moving(frames=7)
    data = encode_webp(video, fps, TEXT)
    assert encode_webp(video.clone(), fps, TEXT) == data
    (tmp_path / "v.webp").write_bytes(data)
    assert read_embedded(tmp_path / "v.webp").inputs["prompt"] == "a »ball« 😀"
    ends = []
    with Image.open(tmp_path / "v.webp") as image:
        assert image.n_frames == 7
        assert image.info["loop"] == 0
        for i in range(7):
            image.seek(i)
            image.load()
            ends.append(image.info["duration"] + (ends[-1] if ends else 0))
            back = torch.from_numpy(np.array(image.convert("RGB"))).float() / 255
            assert float((back - video[i]).abs().mean()) < 0.03, i
    assert ends == [round(1000 * (i + 1) / fps) for i in range(7)]


def test_one_frame_at_a_time_is_converted(monkeypatch):
    """A video longer than memory would allow as pictures still goes through."""
    import gatekit.pictures

    alive = [0, 0]

    class Watched(np.ndarray):
        def __del__(self):
            alive[0] -= 1

    def counted(frame):
        alive[0] += 1
        alive[1] = max(alive)
        return pixels(frame).view(Watched)

    monkeypatch.setattr(gatekit.pictures, "pixels", counted)
    encode_webp(moving(12), 16)
    assert 1 <= alive[1] <= 3


def test_a_picture_of_another_program(tmp_path):
    (tmp_path / "v.png").write_bytes(encode_png(moving()[0]))
    (tmp_path / "v.webp").write_bytes(encode_webp(moving(), 16))
    for name in ("v.png", "v.webp"):
        with pytest.raises(gatekit.ScheduleError, match="this file carries no schedule"):
            read_embedded(tmp_path / name)
        (tmp_path / name).write_bytes(b"nothing at all")
        with pytest.raises(gatekit.ScheduleError, match="no readable"):
            read_embedded(tmp_path / name)


def test_a_latent_alone_is_written_without_decoding(project, tmp_path, fake):
    plan = resolve(load_schedule(project / "fake.yaml"))
    fake.LOG.clear()
    result = gatekit.run(plan, Inputs(prompt="x"), out=tmp_path / "out.safetensors")
    assert "decode" not in fake.LOG
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "out.safetensors")["latent"], result.latent)
    first = (tmp_path / "out.safetensors").read_bytes()
    assert result.save(tmp_path / "again.safetensors").read_bytes() == first
    assert result.video.shape == (5, 32, 32, 3)
    assert fake.LOG.count("decode") == 1
    assert result.video is result.video
    assert fake.LOG.count("decode") == 1, "decoded once"


@pytest.mark.parametrize("name", ["out.mp4", "out.webp", "out.png", "out/", "out.safetensors"])
def test_every_kind_carries_what_made_it(project, tmp_path, name):
    plan = resolve(load_schedule(project / "fake.yaml"))
    result = gatekit.run(plan, Inputs(prompt="a ball", seed=4), out=f"{tmp_path}/{name}")
    assert json.loads((tmp_path / "out.run" / "run.json").read_text())["status"] == "done"
    written = Path(Target.of(f"{tmp_path}/{name}").first(5))
    carried = read_embedded(written)
    assert json.loads(carried.schedule) == plan.resolved()
    assert (carried.inputs["prompt"], carried.inputs["seed"]) == ("a ball", 4)
    assert carried.folder == project, "the run folder beside it tells where the weights are"
    assert set(carried.weights) == {"coarse.num", "fine.num", "text.bin", "vae.bin"}
    assert result.save(f"{tmp_path}/copy{Path(name).suffix or '/'}").exists()
