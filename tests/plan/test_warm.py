"""Runs that share a Warm: what they make is what separate runs make, and is loaded once."""

import pytest
import torch

import gatekit
from gatekit import Inputs, Warm, load_schedule


def run(project, *overrides, warm=None, seed=4, prompt="x"):
    plan = gatekit.resolve(load_schedule(project / "fake.yaml", list(overrides)))
    return gatekit.run(plan, Inputs(prompt=prompt, seed=seed), warm=warm)


CASES = ["sigmas.steps=8", "sigmas.steps=6", "phases.low.guidance={use: cfg, scale: 3.0}"]


def test_shared_runs_are_equal_to_separate_ones(project):
    warm = Warm()
    for case in CASES:
        for seed in (1, 2):
            shared = run(project, case, warm=warm, seed=seed)
            assert torch.equal(shared.latent, run(project, case, seed=seed).latent)


def test_weights_and_prompts_are_read_once(project, fake):
    warm = Warm()
    fake.LOG.clear()
    for case in CASES:
        run(project, case, warm=warm)
    assert [e for e in fake.LOG if "load" in e] == ["load coarse", "load fine"]
    assert fake.LOG.count("encode") == 1
    warm.close()
    assert sorted(fake.LOG[-2:]) == ["unload coarse", "unload fine"] and not warm.loaded
    fake.LOG.clear()
    run(project, warm=warm)  # and on from there
    assert fake.LOG.count("encode") == 1 and "load coarse" in fake.LOG


def test_what_is_not_the_same_is_not_shared(project, fake):
    warm = Warm()
    run(project, warm=warm)
    fake.LOG.clear()
    run(project, "variants.fine.gain=2.0", warm=warm, prompt="another")
    assert fake.LOG.count("encode") == 1
    assert [e for e in fake.LOG if "load" in e] == ["load fine"]


def test_a_phase_that_adjusts_its_variant_shares_nothing_with_one_that_does_not(project):
    warm, change = Warm(), "phases.high.adjust={gain: 0.5}"
    run(project, warm=warm)
    assert torch.equal(run(project, change, warm=warm).latent, run(project, change).latent)
    assert torch.equal(run(project, warm=warm).latent, run(project).latent)


def test_little_memory_still_makes_room(project, fake):
    warm = Warm()
    fake.LOG.clear()
    for _ in range(2):
        run(project, "memory.vram=12B", warm=warm)
    wanted = ["load coarse", "unload coarse", "load fine", "unload fine"] * 2
    assert [e for e in fake.LOG if "load" in e] == wanted[:-1]


def test_the_prompt_used_longest_ago_goes_first(project, fake):
    warm = Warm(prompts=2)
    fake.LOG.clear()
    for prompt in ("a", "b", "a", "c", "a", "b"):
        run(project, warm=warm, prompt=prompt)
    assert fake.LOG.count("encode") == 4  # a, b, c, and b again


def test_hashes_of_files_are_computed_once(project, tmp_path, monkeypatch):
    from gatekit import warm as module

    asked = []
    real = module.Hashes
    monkeypatch.setattr(module, "Hashes", lambda files: asked.append(files) or real(files))
    warm = Warm()
    for name in ("a", "b"):
        plan = gatekit.resolve(load_schedule(project / "fake.yaml"))
        out = tmp_path / f"{name}.safetensors"
        result = gatekit.run(plan, Inputs(prompt="x"), out=out, warm=warm)
        assert result.weights
    assert len(asked) == 1


@pytest.mark.parametrize("warm", [None, Warm()])
def test_a_failing_run_leaves_things_usable(project, warm, monkeypatch, fake):
    real = fake.Number.velocity
    monkeypatch.setattr(fake.Number, "velocity", lambda *a: real(*a) * float("nan"))
    with pytest.raises(gatekit.NumericsError):
        run(project, warm=warm)
    monkeypatch.setattr(fake.Number, "velocity", real)
    assert torch.equal(run(project, warm=warm).latent, run(project).latent)
