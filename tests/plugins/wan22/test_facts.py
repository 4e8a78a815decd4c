"""What a plan learns from headers, without torch; and memory while loading."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

LOOK = """
import sys
import gatekit_wan22
families = gatekit_wan22.gatekit_register_families()
gguf, safetensors, pth = gatekit_wan22.gatekit_register_variants()
print(families[0].name, gguf.name, safetensors.name)
for path in sys.argv[1:]:
    cls = gguf if path.endswith("gguf") else safetensors
    print(cls(cls.Params(file=path, expert="high")).facts().storage)
heavy = {"torch", "diffusers", "transformers", "tokenizers", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture(scope="module")
def mixed(wan, tools, tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "wan2.2_t2v_low_noise_14B_Q5_K_M.gguf"
    kinds = lambda n, _: ("Q6_K" if ".v." in n else "Q5_K") if tools.is_matrix(n) else "F16"  # noqa: E731
    return tools.write_gguf(path, wan.state, kinds)


def test_facts_need_no_torch(wan, mixed):
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(wan.path), str(mixed)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["wan22", "gguf", "safetensors", "fp32", "Q5_K_M"]


def test_facts_of_a_gguf(mixed, wan, tools):
    facts = tools.open_file(mixed, expert="low").facts()
    assert facts.types == {"F16": 49, "Q5_K": 16, "Q6_K": 4}
    assert facts.parameters == sum(t.numel() for t in wan.state.values())
    assert facts.file_bytes == mixed.stat().st_size
    assert 5.5 < facts.bits_per_weight < 16
    assert facts.details["model"].startswith("wan 2 layers x 256 (2 heads, ffn 512)")
    assert facts.details["takes"] == "text" and facts.warnings == ()
    kept = tools.open_file(mixed, keep="always").facts()
    assert facts.resident_bytes < kept.resident_bytes == 2 * facts.parameters


@pytest.mark.parametrize(("expert", "warns"), [("high", True), ("low", False), (None, False)])
def test_name_that_contradicts_the_expert(expert, warns, mixed, tools):
    warnings = tools.open_file(mixed, expert=expert).facts().warnings
    assert bool(warnings) == warns
    if warns:
        assert "low-noise" in warnings[0] and "'expert' is high" in warnings[0]


def test_a_name_that_the_tensors_deny_is_not_believed(mixed, tools, tmp_path):
    path = tmp_path / "wan_Q2_K.gguf"
    path.write_bytes(mixed.read_bytes())
    assert tools.open_file(path).facts().storage == "Q5_K"


def test_files(wan, tools):
    assert tools.open_file(wan.path).files() == (wan.path,)


@pytest.fixture(scope="module")
def large(tools, tmp_path_factory):
    """100 MB in fp16: large against everything else that moves."""
    model = tools.random_wan(layers=6, dim=1024, ffn=2048)
    state = {n: t.half() for n, t in tools.official(model).items()}
    path = tmp_path_factory.mktemp("large") / "large.safetensors"
    save_file(state, path)
    return path, sum(t.numel() for t in state.values())


def test_loading_holds_nothing_twice(large, tools):
    path, parameters = large
    variant = tools.open_file(path)
    variant.load("cpu", "fp32")  # imports, allocator
    variant.unload()
    assert tools.private_bytes() > 0
    rise = tools.rise_of(lambda: variant.load("cpu", "fp32"))
    assert 0.7 * 4 * parameters < rise < 1.35 * 4 * parameters
    fall = tools.private_bytes()
    variant.unload()
    assert fall - tools.private_bytes() > 0.8 * 4 * parameters


def test_weights_of_the_compute_type_stay_in_the_file(large, tools):
    """fp16 on the CPU is computed out of the memory map: no copy."""
    path, parameters = large
    variant = tools.open_file(path)
    rise = tools.rise_of(lambda: variant.load("cpu", "fp16"))
    weight = variant.module.blocks[0].ffn.net[2].weight
    assert weight.dtype == torch.float16
    variant.unload()
    assert rise < 0.5 * 2 * parameters


@pytest.mark.parametrize(
    ("name", "expert", "warns"),
    [
        ("tinywan_low_Q2_K", "high", True),
        ("tinywan_high_Q2_K", "high", False),
        ("wan2.2_HighNoise_14B", "low", True),
        ("wan_highres_slow", "low", False),
        ("high_and_low_noise", "low", False),
    ],
)
def test_words_of_a_name_that_say_which_expert_it_is(name, expert, warns, mixed, tools, tmp_path):
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(mixed.read_bytes())
    assert bool(tools.open_file(path, expert=expert).facts().warnings) == warns
