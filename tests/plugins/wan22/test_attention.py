"""Attention backends: which are here, which one is chosen, and switching between them."""

import pytest
import torch

from gatekit import Execution, PhaseAsk, ScheduleError
from gatekit_wan22 import WanConditioning, attention, attention_own, executions
from gatekit_wan22.attention import BACKENDS, choose, usable

H100, A100 = (9, 0), (8, 0)


@pytest.mark.parametrize("capability", [H100, A100, (12, 0), None])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cpu", "mps"])
def test_auto_leaves_the_choice_to_torch(device, capability, monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda name: None)  # flash 4 may be here
    for compute in ("bf16", "fp16", "fp8", "fp32"):
        assert choose("auto", device, compute, capability) == "native"


@pytest.mark.parametrize(
    ("capability", "compute", "deterministic", "taken"),
    [
        (H100, "bf16", False, "flash4"),
        (H100, "fp8", False, "flash4"),
        (H100, "fp32", False, "native"),
        (H100, "bf16", True, "native"),
        (A100, "bf16", False, "native"),
        ((12, 0), "bf16", False, "native"),
        (None, "bf16", False, "native"),
    ],
)
def test_auto_takes_flash4_on_hopper_where_it_is_installed(
    capability, compute, deterministic, taken, monkeypatch
):
    monkeypatch.setattr(attention, "find_spec", lambda name: object())
    monkeypatch.setattr(attention, "version", lambda name: "4.0.0")
    assert choose("auto", "cuda", compute, capability, deterministic) == taken


def test_cudnn_needs_a_torch_that_gets_it_right(monkeypatch):
    monkeypatch.setattr(attention, "torch_version", lambda: (2, 5, 1))
    with pytest.raises(ScheduleError, match=r"'cudnn' needs torch 2\.6.*update torch"):
        choose("cudnn", "cuda", "bf16", H100)


def test_a_deterministic_run_takes_none_that_may_differ():
    assert choose("auto", "cuda", "bf16", H100, deterministic=True) == "native"
    with pytest.raises(ScheduleError, match=r"'cudnn' is not let by torch .*torch_flash"):
        choose("cudnn", "cuda", "bf16", H100, deterministic=True)
    with pytest.raises(ScheduleError, match="'xformers' is not known to repeat its bits"):
        choose("xformers", "cuda", "bf16", H100, deterministic=True)
    assert choose("torch_flash", "cuda", "bf16", H100, deterministic=True) == "torch_flash"


def test_an_unknown_one_names_those_that_are_here():
    message = (
        r"unknown attention backend \(got 'cudn'\); did you mean 'cudnn'\? .*auto, native, math"
    )
    with pytest.raises(ScheduleError, match=message) as caught:
        choose("cudn", "cpu", "bf16", None)
    assert "sage" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "device", "compute", "capability", "message"),
    [
        ("cudnn", "cpu", "bf16", None, "needs a GPU, and this run is on cpu"),
        ("cudnn", "cuda", "fp32", H100, "takes 16-bit numbers, not fp32"),
        ("cudnn", "cuda", "bf16", (7, 5), "needs compute capability 8.0, and cuda has 7.5"),
        ("sage", "cuda", "bf16", H100, "is not installed.*pip install 'sageattention>=2.1.1'"),
        ("flash3", "cuda", "bf16", A100, "needs compute capability 9.0"),
        ("flash3", "cuda", "bf16", H100, ".*build it from its source"),
    ],
)
def test_what_is_missing_is_said_with_a_remedy(name, device, compute, capability, message):
    wanted = f"attention backend '{name}' {message}.*here there are"
    with pytest.raises(ScheduleError, match=wanted):
        choose(name, device, compute, capability)


def test_an_installed_package_is_usable_if_new_enough(monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda name: object())
    for found, there in (("2.1.0", False), ("2.1.1", True), ("2.2.0+cu128", True), ("?", False)):
        monkeypatch.setattr(attention, "version", lambda name, v=found: v)
        assert ("sage" in usable("cuda", "bf16", H100)) is there
    for found, there in (("4.0.0b35", False), ("4.0.0b36", True), ("4.0.0", True)):
        monkeypatch.setattr(attention, "version", lambda name, v=found: v)
        assert ("flash4" in usable("cuda", "bf16", H100)) is there
    monkeypatch.setattr(attention, "version", lambda name: "2.1.1")
    assert choose("sage", "cuda", "bf16", H100) == "sage"


@pytest.mark.parametrize("error", [ImportError("undefined symbol"), OSError("no such library")])
def test_a_package_beside_it_that_cannot_be_imported_is_no_error_of_auto(error, monkeypatch):
    """To look for ``flash_attn.cute`` imports ``flash_attn``, which may be of another package."""

    def broken(name):
        if "." in name:
            raise error
        return object()

    monkeypatch.setattr(attention, "find_spec", broken)
    monkeypatch.setattr(attention, "version", lambda name: "4.0.0")
    assert choose("auto", "cuda", "bf16", H100) == "native"
    with pytest.raises(ScheduleError, match=r"'flash4' is not installed.*flash-attn-4"):
        choose("flash4", "cuda", "bf16", H100)


def test_names_are_those_of_diffusers():
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    for backend in (b for n, b in BACKENDS.items() if n not in attention_own.OWN):
        name = AttentionBackendName(backend.dispatch)
        assert name in _AttentionBackendRegistry._backends


def test_a_phase_switches_the_backend_of_a_loaded_model(wan, inputs, tools, monkeypatch):
    used = []
    kernel = torch.nn.attention.sdpa_kernel

    def noted(backend, *args, **options):
        used.append(backend)
        return kernel(backend, *args, **options)

    monkeypatch.setattr(torch.nn.attention, "sdpa_kernel", noted)
    variant = tools.open_file(wan.path)
    variant.configure(Execution(attention="math"))
    variant.load("cpu", "fp32")
    condition = WanConditioning(text=inputs.text)
    math = variant.velocity(inputs.x, inputs.sigma, condition)
    assert used and set(used) == {torch.nn.attention.SDPBackend.MATH}
    used.clear()
    variant.configure(Execution(attention="native"))
    native = variant.velocity(inputs.x, inputs.sigma, condition)
    assert not used
    assert torch.allclose(math, native, rtol=1e-4, atol=1e-5)


def planned(monkeypatch, *asks, tokens=32_760):
    monkeypatch.setattr(attention, "find_spec", lambda name: object())
    monkeypatch.setattr(attention, "version", lambda name: "4.0.0")
    monkeypatch.setattr(executions, "compute_capability", lambda device: H100)
    phases = [
        PhaseAsk(str(i), None, False, "bf16", **{"attention": "auto", "compile": False, **ask})
        for i, ask in enumerate(asks)
    ]
    found = executions.executions(phases, tokens, "cuda")
    return [each.attention for each in found], [" ".join(each.remarks) for each in found]


def test_auto_takes_flash4_where_a_run_is_long_enough_to_load_it(monkeypatch):
    """0.24 s a pass of 32,760 tokens on an H100, 6 s to load: from 25 passes on, of all phases."""
    names, remarks = planned(monkeypatch, {"passes": 16}, {"passes": 10})
    assert names == ["flash4", "flash4"] and remarks == ["", ""]
    names, remarks = planned(monkeypatch, {"passes": 16}, {"passes": 8})
    assert names == ["native", "native"]
    assert all("would save about 6 s of a run" in line for line in remarks)
    names, _ = planned(monkeypatch, {"passes": 100}, tokens=4590)
    assert names == ["native"]


def test_flash4_that_is_loaded_anyway_serves_every_phase(monkeypatch):
    names, remarks = planned(monkeypatch, {"passes": 4}, {"passes": 1, "attention": "flash4"})
    assert names == ["flash4", "flash4"] and remarks == ["", ""]


def test_phases_that_name_another_backend_do_not_count(monkeypatch):
    names, _ = planned(monkeypatch, {"passes": 20}, {"passes": 100, "attention": "math"})
    assert names == ["native", "math"]
