"""What the runs of the bench leave on disk, and what they say of themselves."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

import gatekit
from gatekit_bench import part_loading, part_memory, part_run
from gatekit_bench.clock import Clock
from gatekit_bench.findings import Findings, LeftOut
from gatekit_bench.lab import Lab
from gatekit_bench.sizes import SIZES


@pytest.fixture
def lab(tmp_path):
    whole = SIZES["tinywan"]
    findings = Findings({}, 1e12)
    kinds = ["Q2_K", "Q8_0"]
    return Lab(
        whole,
        replace(whole, layers=1),
        "cpu",
        "fp32",
        tmp_path,
        [16],
        kinds,
        findings,
        Clock("cpu"),
        rates={"matmul": 1e12, "copy": 1e12, "host": 1e12},
    )


@pytest.mark.parametrize(
    ("module", "part", "count"), [(part_run, "run", 3), (part_memory, "memory", 2)]
)
def test_files_make_room_whatever_happens(module, part, count, lab, monkeypatch):
    """Also those that were written when the next one could not be."""
    seen = []

    def fail(*given):
        seen.append(len(list(lab.folder.iterdir())))
        raise LeftOut("enough")

    monkeypatch.setattr(module, "runs", fail)
    with pytest.raises(LeftOut, match="enough"):
        getattr(module, part)(lab)
    assert seen == [count] and not list(lab.folder.iterdir())
    monkeypatch.setattr(module, "write_safetensors", fail)
    with pytest.raises(LeftOut, match="enough"):
        getattr(module, part)(lab)
    assert seen == [count, count - 1] and not list(lab.folder.iterdir())


@pytest.mark.parametrize("part", [part_run.run, part_memory.memory, part_loading.loading])
def test_nothing_is_written_where_there_is_no_room(part, lab, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=1e5))
    with pytest.raises(LeftOut, match=r"0 GB are needed in .* and 0 are free; name another"):
        part(lab)
    assert not list(lab.folder.iterdir())


def test_room_is_for_the_types_that_are_written(lab, monkeypatch):
    asked = []
    monkeypatch.setattr(Lab, "room", lambda self, need: asked.append(need))
    monkeypatch.setattr(part_run, "runs", lambda lab, files: asked.append(written(files)))
    part_run.run(lab)
    room, size = asked
    assert size < room < 1.3 * size


def written(files):
    return sum(file.stat().st_size for file in files)


def test_figures_of_fewer_blocks_are_not_called_extrapolated(lab):
    assert lab.measured == "of 1 of 5 blocks, not extrapolated" and "extrapolated from" in lab.note
    assert not replace(lab, sizes=lab.whole).measured


@pytest.mark.parametrize("part", [part_run.run, part_memory.memory])
def test_no_run_leaves_its_models_beside_the_next(part, lab, monkeypatch):
    """On a GPU they stay for the next run of the same plan, beside what another one measures."""
    plans, inner = [], gatekit.run

    def loaded():
        return [v for plan in plans for v in plan.variants.values() if v.loaded]

    def run(plan, *given, **named):
        assert not loaded()
        found = inner(plan, *given, **named)
        plans.append(plan)
        for variant in plan.variants.values():
            variant.load("cpu", "fp32")
        assert loaded()
        return found

    monkeypatch.setattr(gatekit, "run", run)
    lab.findings.parts.append({"name": "it", "rows": []})
    part(lab)
    assert plans and not loaded()
