"""A training says what is wrong with its command line before it computes or writes anything."""

from pathlib import Path

import pytest

pytest.importorskip("diffusers")

import gatekit_tinywan
from gatekit_tinywan.train.arguments import OF_CONFIG, parsed
from gatekit_tinywan.train.config import Config

SHIPPED = str(Path(gatekit_tinywan.__file__).parent / "weights")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clips", "0"], "--clips: a whole number from 1 on (got 0)"),
        (["--judge-clips", "-1"], "--judge-clips: a whole number from 1 on (got -1)"),
        (["--decay-from", "7"], "--decay-from: from 0 to 1 (got 7.0)"),
        (["--seen-share", "nan"], "--seen-share: from 0 to 1 (got nan)"),
        (["--expert-rate", "0"], "--expert-rate: above 0 (got 0.0)"),
        (["--low-seconds", "0"], "--low-seconds: above 0"),
        (["--stages", "experts"], "has no files of the stage vae; run it first"),
        (["--stages", "quantise"], "has no files of the stage vae; run it first"),
        (["--start-from", "nowhere"], "--start-from: no tinywan_vae_fp16.safetensors in nowhere"),
        (
            ["--start-from", SHIPPED, "--average-with", "nowhere"],
            "--average-with: no tinywan_high_fp16.safetensors in nowhere",
        ),
    ],
)
def test_what_cannot_be(arguments, said, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        parsed(["--out", str(out), *arguments], None)
    assert end.value.code == 2 and said in capsys.readouterr().err
    assert not out.exists()


def test_a_file_in_the_place_of_the_folder(tmp_path, capsys):
    (tmp_path / "out").touch()
    with pytest.raises(SystemExit):
        parsed(["--out", str(tmp_path / "out")], None)
    assert "out is a file; name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "weights", "weights/more", "../gatekit_tinywan"])
@pytest.mark.parametrize("stages", ["vae", "judge"])
def test_the_shipped_weights_are_not_written_over_by_mistake(place, stages, monkeypatch, capsys):
    monkeypatch.chdir(Path(SHIPPED).parent)
    line = ["--out", place, "--stages", stages, *(["--start-from", SHIPPED] * (stages == "judge"))]
    with pytest.raises(SystemExit) as end:
        parsed(line, None)
    said = capsys.readouterr().err
    assert end.value.code == 2 and f"the shipped weights lie in {SHIPPED} (got {place});" in said
    assert parsed([*line, "--overwrite"], None).out == Path(place)


def test_what_a_training_begins_with_is_not_written_over_by_mistake(tmp_path, capsys):
    begun = tmp_path / "more" / "weights"
    begun.mkdir(parents=True)
    for name in ("vae", "high", "low", "umt5"):
        (begun / f"tinywan_{name}_fp16.safetensors").touch()
    out = ["--out", str(tmp_path / "more")]
    for option, line in (
        ("--start-from", ["--start-from", str(begun)]),
        ("--average-with", ["--start-from", SHIPPED, "--average-with", str(begun)]),
    ):
        with pytest.raises(SystemExit):
            parsed([*out, *line], None)
        assert f"--out: the files of {option} would be written over" in capsys.readouterr().err
        assert parsed([*out, *line, "--overwrite"], None).overwrite
    judged = parsed([*out, "--start-from", str(begun), "--stages", "judge"], None)
    assert judged.stages == "judge"  # writes no weights


def test_each_stage_names_the_one_that_it_begins_with(tmp_path, capsys):
    out = ["--out", str(tmp_path), "--stages"]
    for stage, needed, files in (
        ("base", "vae", ["vae.0"]),
        ("experts", "base", ["base.0", "base.1"]),
        ("quantise", "experts", ["high.0", "low.0"]),
    ):
        with pytest.raises(SystemExit):
            parsed([*out, stage], None)
        assert f"no files of the stage {needed};" in capsys.readouterr().err
        for name in files:
            (tmp_path / f"{name}.safetensors").touch()
        assert parsed([*out, stage], None).stages == stage


def test_what_can_be(tmp_path):
    out = ["--out", str(tmp_path / "out")]
    assert parsed(out, None).stages == "vae,base,experts"
    assert parsed([*out, "--start-from", SHIPPED], None).stages == "experts"
    mean = parsed([*out, "--start-from", SHIPPED, "--average-with", SHIPPED], None)
    assert mean.stages == "average"


def test_the_help_has_every_option_of_the_configuration(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parsed(["-h"], "about")
    said = capsys.readouterr().out
    assert f"({Config.expert_rate:g})" in said
    given = [word for name in OF_CONFIG for word in (f"--{name.replace('_', '-')}", "1")]
    found = vars(parsed(["--out", str(tmp_path), *given], None))
    assert all(found[name] == 1 for name in OF_CONFIG)
