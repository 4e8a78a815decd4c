"""The soak in short: runs of the fake family leave nothing; leaks that are planted are found."""

import gc
import os
import threading
import weakref
from dataclasses import replace

import pytest
import soak

import gatekit
from gatekit import Cancelled, Inputs, WeightsError


def stop(state, record, denoised):
    raise Cancelled


@pytest.fixture
def kinds(project):
    """Like those of the small model: results of every kind, failures, cancelled and resumed."""
    results = []

    def run(number, out, *overrides, **given):
        schedule = gatekit.load_schedule(project / "fake.yaml", list(overrides))
        result = gatekit.run(
            gatekit.resolve(schedule),
            Inputs(prompt="x", seed=number),
            out=f"{project}/{out}",
            **given,
        )
        results.append(weakref.ref(result))

    def fails(number):
        (project / "torn.num").write_text("{")
        with pytest.raises(WeightsError):
            run(number, "out.mp4", f"variants.fine.file={project / 'torn.num'}")

    def cancelled(number):
        with pytest.raises(Cancelled):
            run(number, "stopped.mp4", observers=[stop])
        run(number, "stopped.mp4", resume=project / "stopped.run")

    other = "phases.low.sampler={use: dpmpp_2m_sde}"
    return results, [
        ("plain", lambda n: run(n, f"{n}.mp4")),
        ("frames", lambda n: run(n, f"{n}/", other)),
        ("fails", fails),
        ("cancelled", cancelled),
        ("latent", lambda n: run(n, f"{n}.safetensors", "phases.low.history=close")),
        ("webp", lambda n: run(n, f"{n}.webp", "phases.high.sampler={use: er_sde}")),
    ]


def test_runs_leave_no_thread_no_file_and_no_tensor(kinds):
    results, calls = kinds
    readings = [*soak.soak(calls, 6)]
    before = soak.tensors()
    readings += soak.soak(calls, 6)
    early, late = readings[5], readings[-1]
    assert [r.kind for r in readings[:6]] == [name for name, _ in calls]
    # Six runs are too few to judge memory by; tensors tell.
    assert soak.grown(early, replace(late, anonymous=early.anonymous)) == []
    assert soak.tensors() <= before
    gc.collect()
    assert results
    assert not [result for ref in results if (result := ref())]


def test_leaks_are_found(tmp_path):
    kept, release = [], threading.Event()

    def leak(number):
        kept.append(bytearray(os.urandom(1 << 20)) * 32)
        kept.append((tmp_path / f"{number}.txt").open("w"))
        thread = threading.Thread(target=release.wait, name=f"left-{number}")
        thread.start()
        kept.append(thread)

    try:
        early, late = soak.soak([("leak", leak)], 2)
        found = soak.grown(replace(early, anonymous=late.anonymous - (32 << 20)), late)
        assert late.anonymous - early.anonymous > 24 << 20
        assert "thread left: left-2" in found
        assert any(text.startswith("open file left: ") and "2.txt" in text for text in found)
        assert "1 threads more" in found
        assert any(text.startswith("memory grew by ") for text in found)
    finally:
        release.set()
        for thing in kept[1::3]:
            thing.close()
        for thing in kept[2::3]:
            thing.join()


def test_a_report_compares_the_last_run_with_the_twentieth():
    one = soak.Reading(1, "x", 100 << 20, 200 << 20, 1, ("MainThread",), (), 0.1)
    readings = [replace(one, run=n, anonymous=(100 + n // 20) << 20) for n in range(1, 41)]
    found = soak.report(readings, [5, 5])
    assert found["growth"] == pytest.approx(1 / 101)
    assert found["grown"] == []
    readings[-1] = replace(readings[-1], anonymous=104 << 20)
    assert soak.report(readings, [5, 5])["grown"] == [
        "memory grew by 3.0% from run 20 to run 40",
    ]
