"""A schedule names files of its own folder and the model folders, unless its reader allows more."""

import json
import os
import struct
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

import gatekit
from gatekit.cli import call
from gatekit.embed import FORMAT, Carried, of_text
from gatekit.load import of_carried
from gatekit.outside import is_inside, plain

OUTSIDE = "outside the schedule's folder"


@pytest.fixture
def elsewhere(project):
    """A weight file outside the project's folder."""
    folder = project.parent / "elsewhere"
    folder.mkdir()
    (project / "coarse.num").rename(folder / "coarse.num")
    return folder / "coarse.num"


def named(project, name):
    text = (project / "fake.yaml").read_text().replace("coarse.num", str(name))
    (project / "fake.yaml").write_text(text)
    return project / "fake.yaml"


@pytest.mark.parametrize("form", [str, lambda p: "../elsewhere/coarse.num", os.path.relpath])
def test_a_file_outside_is_refused_until_it_is_allowed(project, elsewhere, form, capsys):
    path = named(project, form(elsewhere) if form is not os.path.relpath else "sub/../../x.num")
    assert call(["plan", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"{path}:7:45: variants.coarse.file" in said and OUTSIDE in said
    assert "--allow-outside" in said and "--models-dir" in said
    if form is not os.path.relpath:
        assert call(["plan", str(path), "--allow-outside"]) == 0
        assert call(["--allow-outside", "plan", str(path)]) == 0
        assert call(["plan", str(path), "--models-dir", str(elsewhere.parent)]) == 0
    assert "GATEKIT_ALLOW_OUTSIDE" not in os.environ


def test_it_is_refused_before_it_is_touched(project):
    """Neither whether it is there is told, nor is it opened: a pipe would wait for ever."""
    pipe = project.parent / "pipe"
    os.mkfifo(pipe)
    for name in (
        pipe,
        project.parent / "absent",
        "~/x",
        "~nobody-has-this-name/../../x",
        "/dev/zero",
    ):
        path = named(project, name)
        with pytest.raises(gatekit.ScheduleError, match=OUTSIDE):
            gatekit.resolve(gatekit.load_schedule(path))
        (project / "fake.yaml").write_text(path.read_text().replace(str(name), "coarse.num"))


def test_who_starts_the_program_may_name_any_file(project, elsewhere):
    path = project / "fake.yaml"
    for overrides in (
        {"variants.coarse.file": str(elsewhere)},
        [f"variants.coarse.file={elsewhere}"],
        ["variants.coarse.file=../elsewhere/coarse.num"],
    ):
        plan = gatekit.resolve(gatekit.load_schedule(path, overrides))
        assert plan.variants["coarse"].files() == (elsewhere,)
    path = named(project, elsewhere)
    allowed = gatekit.load_schedule(path, allow_outside=True)
    assert gatekit.resolve(allowed).variants["coarse"].files() == (elsewhere,)


def test_components_and_tokenizers_too(project, elsewhere):
    for section in ("text_encoder", "vae"):
        text = (project / "fake.yaml").read_text()
        changed = text.replace(f"{section}: {{", f"{section}: {{tokenizer: {elsewhere}, ")
        (project / "fake.yaml").write_text(changed)
        with pytest.raises(gatekit.ScheduleError, match=rf"{section}.tokenizer.*{OUTSIDE}"):
            gatekit.resolve(gatekit.load_schedule(project / "fake.yaml"))
        (project / "fake.yaml").write_text(text)


def test_a_link_of_the_user_may_lead_out(project, elsewhere):
    (project / "coarse.num").symlink_to(elsewhere)
    assert gatekit.resolve(gatekit.load_schedule(project / "fake.yaml"))


@pytest.mark.parametrize("name", ["../base.yaml", "{}/base.yaml", "sub/../../base.yaml"])
def test_extends_stays_in_the_folder(project, name):
    (project / "fake.yaml").rename(project.parent / "base.yaml")
    path = project / "own.yaml"
    path.write_text(f"extends: {name.format(project.parent)}\n")
    with pytest.raises(gatekit.ScheduleError, match=f"own.yaml:1:10: extends.*{OUTSIDE}"):
        gatekit.load_schedule(path)
    assert gatekit.load_schedule(path, allow_outside=True).name == "fake"
    path.write_text("extends: sub/own.yaml\n")
    (project / "sub").mkdir()
    (project / "sub" / "own.yaml").write_text("extends: ../base.yaml\n")
    (project.parent / "base.yaml").rename(project / "base.yaml")
    assert gatekit.load_schedule(path).name == "fake"  # up again, but no further


def test_a_video_is_trusted_no_more_than_a_file(project, elsewhere):
    data = gatekit.load_schedule(named(project, elsewhere)).to_dict()
    carried = Carried(json.dumps(data), folder=project)
    with pytest.raises(gatekit.ScheduleError, match=f"v.mp4:1.*{OUTSIDE}"):
        gatekit.resolve(of_carried(carried, Path("v.mp4")))
    assert gatekit.resolve(of_carried(carried, Path("v.mp4"), allow_outside=True))


CONTENT = {"format": FORMAT, "schedule": {}, "inputs": {"prompt": "a", "seed": 1}, "weights": {}}


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": []},
        {"inputs": []},
        {"inputs": {"prompt": 3}},
        {"inputs": {"prompt": "a", "seed": "x"}},
        {"inputs": {"prompt": "a", "image": "../x"}},
        {"inputs": {"prompt": "a", "image": {"file": ["x"]}}},
        {"weights": {"a": 1}},
        {"weights": ["a"]},
        {"format": "gatekit-video-9"},
        {"more": "x" * (1 << 20)},
    ],
)
def test_metadata_of_another_form_is_refused(tmp_path, change):
    of_text(json.dumps(CONTENT), tmp_path / "v.mp4")
    with pytest.raises(gatekit.ScheduleError, match="carries no schedule"):
        of_text(json.dumps(CONTENT | change), tmp_path / "v.mp4")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, "", "null", "\0"])
def test_metadata_that_is_no_json_of_ours_is_refused(tmp_path, text):
    with pytest.raises(gatekit.ScheduleError, match="carries no schedule"):
        of_text(text, tmp_path / "v.mp4")


def test_images_of_a_video_are_looked_for_beside_it(tmp_path):
    image = {"file": "../../etc/passwd", "sha256": "0"}
    content = CONTENT | {"inputs": {"prompt": "a", "image": image}}
    found = of_text(json.dumps(content), tmp_path / "v.mp4")
    assert found.inputs["image"]["file"] == str(tmp_path / "passwd")
    assert json.loads(replace(found, folder=None).dump())["inputs"]["image"]["file"] == "passwd"


def test_what_is_checked_is_what_is_opened(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert plain(tmp_path / "link" / ".." / "x") == tmp_path / "x"
    assert is_inside(tmp_path / "link" / "x", [tmp_path / "a"])
    assert is_inside(tmp_path / "a" / "x", [tmp_path / "link"])
    assert not is_inside(tmp_path / "ab", [tmp_path / "a"])
    assert not is_inside(tmp_path / "x\0", [tmp_path / "a"])


def test_a_mp4_that_points_elsewhere_is_not_followed(tmp_path):
    """A playlist under the name of a video: ffmpeg would open what it lists."""
    (tmp_path / "v.mp4").write_text("#EXTM3U\n#EXTINF:1\nhttp://localhost:1/a.ts\n")
    with pytest.raises(gatekit.ScheduleError, match="no readable mp4"):
        gatekit.load_schedule(tmp_path / "v.mp4")


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PNG = b"\x89PNG\r\n\x1a\n"
HEADER = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)


@pytest.mark.parametrize(
    "content",
    [
        PNG + chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 8, 2, 0, 0, 0)),
        PNG
        + chunk(b"IHDR", HEADER)
        + chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"x" * (64 << 20)))
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b""),
        PNG + chunk(b"IHDR", HEADER[:5]),
        PNG,
        b"",
        b"RIFF\xff\xff\xff\xffWEBPVP8X",
    ],
)
@pytest.mark.parametrize("name", ["v.png", "v.webp"])
def test_a_picture_made_to_fill_the_memory(tmp_path, content, name):
    """Of 2^60 pixels, with a text of 64 MiB in 64 kB, or cut short: one error."""
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(gatekit.ScheduleError, match=r"no readable|carries no schedule"):
        gatekit.load_schedule(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 << 20


def test_an_absolute_name_through_a_link_is_checked_and_opened_alike(project, elsewhere, capsys):
    """Checked without its ``..`` it was inside, opened with them it was next to the link's end."""
    (elsewhere.parent / "deep").mkdir()
    (project / "link").symlink_to(elsewhere.parent / "deep")
    schedule = named(project, project / "link" / ".." / "coarse.num")
    plan = gatekit.resolve(gatekit.load_schedule(schedule))
    assert [m.name for m in plan.missing] == [str(project / "link" / ".." / "coarse.num")]


RECORDS = {
    "nested": lambda path: path.write_text("[" * 200_000),
    "long": lambda path: (path.touch(), os.truncate(path, 1 << 40)),
    "a pipe": os.mkfifo if hasattr(os, "mkfifo") else None,
    "a folder": Path.mkdir,
    "no text": lambda path: path.write_bytes(b"\xff"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_run_json_beside_a_schedule_or_a_video_of_a_stranger(project, kind):
    """It is looked at to tell run folders from schedules, and to find a video's weights."""
    if RECORDS[kind] is None:
        pytest.skip("no pipes here")
    for folder in (project, project / "v.run"):
        folder.mkdir(exist_ok=True)
        RECORDS[kind](folder / "run.json")
    tracemalloc.start()
    assert gatekit.load_schedule(project / "fake.yaml").name == "fake"
    found = of_text(json.dumps(CONTENT), project / "v.mp4")
    assert found.folder == project and tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_webp_is_not_read_whole(tmp_path):
    """Of 3 GiB, with a canvas of 16x16: its metadata are looked for, and nothing is decoded."""
    file = tmp_path / "v.webp"
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0, 15, 0, 0, 15, 0, 0])
    rest = (3 << 30) - 12 - len(canvas) - 8
    file.write_bytes(
        b"RIFF"
        + struct.pack("<I", (3 << 30) - 8)
        + b"WEBP"
        + canvas
        + b"ANMF"
        + struct.pack("<I", rest)
    )
    os.truncate(file, 3 << 30)
    tracemalloc.start()
    with pytest.raises(gatekit.ScheduleError, match="carries no schedule"):
        gatekit.load_schedule(file)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
