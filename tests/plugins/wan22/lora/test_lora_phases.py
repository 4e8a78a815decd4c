"""LoRAs in schedules: strengths by phase without loading again, fields, hashes, files."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError

import gatekit
from gatekit import Inputs, ScheduleError, hookimpl
from gatekit.registry import registry
from gatekit_wan22 import SafetensorsVariant, WanConditioning, WanFamily


class Bare(WanFamily):
    """Wan without text encoder and VAE."""

    name = "bare"
    required = ()

    def encode(self, inputs, video, device):
        text = torch.randn(1, 20, 32, generator=torch.Generator().manual_seed(2))
        return {"positive": WanConditioning(text=text)}

    def decode(self, latent, video, device):
        return torch.zeros(video.frames, video.height, video.width, 3)


SCHEDULE = """\
version: 1
name: two
family: {{use: bare}}
variants:
  a: {{use: {use}, file: {file}, loras: [{{file: style.safetensors, strength: 0.8, name: style}}]}}
video: {{width: 48, height: 32, frames: 9, fps: 16}}
sigmas: {{use: shifted_linear, steps: 4, shift: 5.0}}
device: cpu
phases:
  - {{name: high, until: 0.9, variant: a, sampler: euler, adjust: {{loras: {{style: 0.2}}}}}}
  - {{name: low, variant: a, sampler: euler}}
"""


@pytest.fixture
def folder(wan, kit, tools, tmp_path, monkeypatch):
    class Plugin:
        @hookimpl
        def gatekit_register_families(self):
            return [Bare]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    registry().register(Plugin(), "bare")
    (tmp_path / "loras").mkdir()
    kit.write(tmp_path / "loras/style.safetensors", kit.pairs(wan.state), alpha=torch.tensor(2))
    tools.write_gguf(
        tmp_path / "wan.gguf", wan.state, lambda n, t: "Q5_K" if tools.is_matrix(n) else "F16"
    )
    (tmp_path / "wan.safetensors").symlink_to(wan.path)
    for use in ("gguf", "safetensors"):
        text = SCHEDULE.format(use=use, file=f"wan.{use}")
        (tmp_path / f"{use}.yaml").write_text(text)
    yield tmp_path
    registry().remove("bare")


def planned(folder, use="safetensors", **changes):
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return gatekit.resolve(gatekit.load_schedule(folder / f"{use}.yaml", overrides))


@pytest.mark.parametrize("use", ["gguf", "safetensors"])
def test_strengths_by_phase_without_loading_again(use, folder, monkeypatch):
    """One load, no matrix read again, and the result of two variants that differ in strength."""
    from gatekit_wan22 import mapped, model

    loads, read = [], []
    load, real = model.load_transformer, mapped.MappedFile.read

    def loading(*args, **options):
        loads.append(1)
        return load(*args, **options)

    def reading(self, info, *args, **options):
        read.append((len(loads), info.shape))
        return real(self, info, *args, **options)

    plan = planned(folder, use, variants__a__keep="never")
    high, low = plan.phases
    assert high.field != low.field
    variant = plan.variants["a"]
    monkeypatch.setattr(model, "load_transformer", loading)
    monkeypatch.setattr(mapped.MappedFile, "read", reading)
    adjust, during = type(variant).adjust, []

    def adjusting(self, params):
        before = len(read)
        adjust(self, params)
        during.extend(read[before:])

    monkeypatch.setattr(type(variant), "adjust", adjusting)
    found = gatekit.run(plan, Inputs(seed=1)).latent
    assert loads == [1]
    # The patch embedding alone is changed in place: a convolution of 256 x 64 weights.
    assert {shape for _, shape in during if len(shape) == 2} == set()
    two = {"use": use, "file": f"wan.{use}", "keep": "never"}
    two |= {"loras": [{"file": "style.safetensors", "strength": 0.2, "name": "style"}]}
    both = planned(
        folder, use, variants__b=two, phases__high__variant="b", phases__high__adjust=None,
        variants__a__keep="never", variants__a__lora_mode="side", variants__b__lora_mode="side",
    )  # fmt: skip
    assert torch.equal(gatekit.run(both, Inputs(seed=1)).latent, found)
    same = planned(folder, use, phases__high__adjust__loras__style=0.8)
    assert same.phases[0].field == same.phases[1].field
    assert not torch.allclose(gatekit.run(same, Inputs(seed=1)).latent, found, atol=1e-3)


def test_merged_weights_come_out_again_exactly(wan, kit, inputs, folder):
    """lora_mode: merge and another strength: the weights are read anew, not subtracted from."""
    lora = folder / "loras/style.safetensors"
    variant = kit.open(wan.path, loras=[{"file": lora, "strength": 0.8}], lora_mode="merge")
    first = kit.velocity(variant, inputs, "bf16")
    assert variant._attached.branches == 0
    for strength in (0.0, -0.3, 0.8):
        variant.adjust(variant.adjusted(variant.Adjust(loras={"style": strength})))
        fresh = kit.open(wan.path, loras=[{"file": lora, "strength": strength}], lora_mode="merge")
        assert torch.equal(
            kit.velocity(variant, inputs, "bf16"), kit.velocity(fresh, inputs, "bf16")
        )
    assert torch.equal(kit.velocity(variant, inputs, "bf16"), first)


@pytest.mark.parametrize(
    ("stored", "compute", "varied", "branches"),
    [
        (torch.float32, "bf16", False, 3),  # copies merged into; the time's three are views
        (torch.float32, "bf16", True, 26),
        (torch.bfloat16, "bf16", False, 23),  # views of the file, but for the time's three
        (torch.float32, "fp32", False, 26),
    ],
)
def test_what_auto_merges(stored, compute, varied, branches, wan, kit, folder, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    save_file({n: p.to(stored) for n, p in wan.state.items()}, path)
    variant = kit.open(path, loras=[{"file": folder / "loras/style.safetensors"}])
    weak = variant.adjusted(variant.Adjust(loras={"style": 0.5}))
    variant.phases = (variant.params, weak) if varied else (weak,)
    variant.load("cpu", compute)
    found = variant._attached.branches
    variant.unload()
    assert found == branches


def test_the_plan_lists_looks_up_and_tells(folder, monkeypatch):
    plan = planned(folder)
    (lora,) = plan.variants["a"].files()[1:]
    assert lora == folder / "loras/style.safetensors" and lora in plan.files()
    text = plan.explain()
    assert f"a: {lora} (LoRA, strength 0.8, " in text and "adjust: {loras: {style: 0.2}}" in text
    assert "style (rank 4 on 27 layers, strength 0.8)" in plan.facts["a"].details["loras"]
    lost = planned(folder, variants__a__loras=[{"file": "nope.safetensors"}],
                   variants__a__file="gone.safetensors", phases__high__adjust=None)  # fmt: skip
    assert [m.name for m in lost.missing] == ["gone.safetensors", "nope.safetensors"]
    assert "variants.a.loras[0].file" in lost.missing[1].where


def test_run_json_hashes_them_and_a_changed_lora_is_another_field(folder, kit, wan):
    plan = planned(folder)
    gatekit.run(plan, Inputs(seed=1), run_dir=folder / "run")
    content = json.loads((folder / "run/run.json").read_text())
    assert str(folder / "loras/style.safetensors") in content["weights"]
    assert content["phases"][0]["adjust"] == {"loras": {"style": 0.2}}
    kit.write(folder / "loras/style.safetensors", kit.pairs(wan.state, seed=5))
    assert planned(folder).phases[1].field != plan.phases[1].field


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"phases__high__adjust": {"loras": {"stile": 1}}},
         r"phases\[0\]\.adjust\.loras\.stile: .*no LoRA 'stile'; did you mean 'style'"),
        ({"phases__high__adjust": {"lora": {}}}, "unknown key 'lora'; did you mean 'loras'"),
        ({"phases__high__adjust__loras__style": "x"},
         r"phases\[0\]\.adjust\.loras\.style.*a number"),
        ({"variants__a__loras__style__strength": 1000}, r"strength.*less than or equal to 100"),
        ({"variants__a__loras__style__stength": 1}, "unknown key 'stength'; did you mean"),
    ],
)  # fmt: skip
def test_mistakes_in_a_schedule(changes, expected, folder):
    with pytest.raises(ScheduleError, match=expected):
        planned(folder, **changes)


def test_two_of_one_name_need_names():
    loras = [{"file": "a/x.safetensors"}, {"file": "b/x.safetensors"}]
    with pytest.raises(ValidationError, match="two LoRAs are called 'x'"):
        SafetensorsVariant.Params(file="w", loras=loras)
    SafetensorsVariant.Params(file="w", loras=[loras[0], {**loras[1], "name": "y"}])
