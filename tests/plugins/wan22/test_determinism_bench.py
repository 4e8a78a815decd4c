"""The bench of determinism, on the CPU: it compares bits, and goes on after what fails."""

import itertools
import json

import determinism
import torch

SMALL = ["--device", "cpu", "--small", "--calls", "2"]


def test_bits_that_differ_are_counted():
    same = determinism.repeated(3, "cpu", lambda: torch.ones(2))
    assert (same["equal"], same["of"]) == (3, 3)
    numbers = itertools.count()
    assert determinism.repeated(3, "cpu", lambda: torch.tensor(next(numbers)))["equal"] == 0


def test_attention_of_every_backend():
    options = determinism.parser().parse_args(SMALL)
    found = determinism.attention(options, "true")
    assert set(found) == {"native", "math"}
    assert all(entry["equal"] == 2 for entry in found.values())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_part_that_fails_is_recorded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(determinism, "PARTS", ("attention false",))
    file = tmp_path / "found.json"
    assert determinism.main(["--device", "nowhere", "--json", str(file)]) == 1
    assert "error" in json.loads(file.read_text())["attention false"]
    assert "error" in capsys.readouterr().out
