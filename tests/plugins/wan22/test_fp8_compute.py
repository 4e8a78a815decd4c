"""Products in fp8: numerics against float32, what is in fp8, and where it is refused."""

import pytest
import torch

from gatekit import ScheduleError
from gatekit_wan22 import WanConditioning
from gatekit_wan22.fp8 import check_fp8, in_fp8, new_fp8_linear, quantised

F8 = torch.float8_e4m3fn


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def relative(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.fixture
def anywhere(monkeypatch):
    """torch multiplies fp8 on a CPU too, slowly: enough to test numerics."""
    monkeypatch.setattr("gatekit_wan22.variant.check_fp8", lambda *a: None)


def test_rows_are_quantised_each_by_its_own_scale():
    rows = normal(8, 64) * 10.0 ** torch.arange(-4, 4).view(8, 1)
    q, scale = quantised(rows)
    assert q.dtype == F8 and scale.shape == (8, 1) and scale.dtype == torch.float32
    assert torch.equal(q.float().abs().amax(1), torch.full((8,), 448.0))
    back = q.float() * scale
    for got, wanted in zip(back, rows, strict=True):
        assert relative(got, wanted) < 0.04  # half a step of 3 bits, on average
    assert torch.all((back - rows).abs() <= rows.abs() / 16 + scale * 2**-9)


def test_rows_of_zeros_and_of_bf16_stay_finite():
    q, scale = quantised(torch.zeros(2, 16))
    assert not q.float().any() and bool((scale > 0).all())
    big = torch.full((1, 16), 3e38, dtype=torch.bfloat16)
    q, scale = quantised(big)
    assert torch.allclose(q.float() * scale, big.float(), rtol=1e-3)


def test_the_product_is_that_of_what_was_quantised():
    """Scales, bias and their order, against the same numbers multiplied in float32."""
    x, w, bias = normal(3, 5, 64, dtype=torch.bfloat16), normal(48, 64, seed=1), normal(48, seed=2)
    bias = bias.bfloat16()
    layer = new_fp8_linear(*quantised(w), bias)
    xq, xs = quantised(x.view(-1, 64))
    wq, ws = quantised(w)
    wanted = (xq.float() * xs) @ (wq.float() * ws).t() + bias.float()
    got = layer(x)
    assert got.shape == (3, 5, 48) and got.dtype == torch.bfloat16
    assert relative(got.view(-1, 48), wanted) < 0.003  # one rounding to bf16
    assert relative(layer.decoded(), w) < 0.04


@pytest.mark.parametrize("columns", [64, 1024])
def test_error_against_float32_on_random_numbers(columns):
    x, w = normal(64, columns), normal(96, columns, seed=1)
    exact, layer = x @ w.t(), new_fp8_linear(*quantised(w), None)
    error = relative(layer(x.bfloat16()), exact)
    in_bf16 = relative(x.bfloat16() @ w.bfloat16().t(), exact)
    assert 0.02 < error < 0.05 and in_bf16 < 0.005


def test_outliers_cost_only_their_own_row():
    x, w = normal(64, 256), normal(96, 256, seed=1)
    x[3] *= 1e4
    w[7] *= 1e4
    got, exact = new_fp8_linear(*quantised(w), None)(x.bfloat16()), x @ w.t()
    for row in (0, 3):
        assert relative(got[row], exact[row]) < 0.05
        assert relative(got[row, :7], exact[row, :7]) < 0.08


def test_only_the_matrices_of_the_blocks_are_in_fp8(wan, tools, anywhere):
    variant = tools.open_file(wan.path)
    variant.load("cpu", "fp8")
    names = [n for n in variant.tensors() if in_fp8(n)]
    assert len(names) == 10 * variant.sizes.layers
    layers = [m for m in variant.module.modules() if type(m).__name__ == "Fp8Linear"]
    assert len(layers) == len(names) and all(m.q.dtype == F8 for m in layers)
    kept = {n: p.dtype for n, p in variant.module.named_parameters() if "ffn" not in n}
    assert kept["proj_out.weight"] == kept["patch_embedding.weight"] == torch.bfloat16
    assert kept["scale_shift_table"] == kept["blocks.0.scale_shift_table"] == torch.float32
    assert kept["condition_embedder.time_proj.weight"] == torch.float32
    assert kept["blocks.0.attn1.norm_q.weight"] == torch.bfloat16


def test_a_models_velocity(wan, inputs, tools, anywhere):
    """A random model in fp8 differs from float32 by a few hundredths, in bf16 by a tenth of it."""
    condition, found = WanConditioning(text=inputs.text), {}
    for compute in ("fp32", "bf16", "fp8"):
        variant = tools.open_file(wan.path)
        variant.load("cpu", compute)
        with torch.no_grad():
            found[compute] = variant.velocity(inputs.x, inputs.sigma, condition)
        assert found[compute].dtype == torch.float32
    assert relative(found["bf16"], found["fp32"]) < 0.01
    assert 0.01 < relative(found["fp8"], found["fp32"]) < 0.06


def test_blocks_of_a_file_become_fp8(wan, inputs, tools, tmp_path, anywhere):
    """Quantised from the decoded blocks: what is left to err is fp8's own part."""
    kinds = lambda name, tensor: "Q5_K" if tools.is_matrix(name) else None  # noqa: E731
    path = tools.write_gguf(tmp_path / "a.gguf", wan.state, kinds)
    found = {}
    for compute in ("fp32", "fp8"):
        variant = tools.open_file(path, keep="never")
        variant.load("cpu", compute)
        with torch.no_grad():
            found[compute] = variant.velocity(
                inputs.x, inputs.sigma, WanConditioning(text=inputs.text)
            )
    assert not any(type(m).__name__ == "StoredLinear" for m in variant.module.modules())
    assert 0.01 < relative(found["fp8"], found["fp32"]) < 0.06


def test_a_file_in_fp8_is_multiplied_as_it_is(wan, tools, tmp_path, anywhere):
    from safetensors.torch import save_file

    state = {n: t.to(F8) if tools.is_matrix(n) else t for n, t in wan.state.items()}
    state["blocks.0.ffn.0.scale_weight"] = torch.tensor(0.25)
    save_file(state, tmp_path / "a.safetensors")
    variant = tools.open_file(tmp_path / "a.safetensors")
    variant.load("cpu", "fp8")
    block = variant.module.blocks[0]
    layer, scaled = block.attn1.to_q, block.ffn.net[0].proj
    stored = state["blocks.0.self_attn.q.weight"]
    assert torch.equal(layer.q.view(torch.uint8), stored.view(torch.uint8))
    assert torch.equal(layer.scale, torch.ones(1, 256))
    assert torch.equal(scaled.scale, torch.full((1, 512), 0.25))


def test_a_lora_is_computed_beside(wan, inputs, tools, tmp_path, anywhere):
    from safetensors.torch import save_file

    lora = {
        f"diffusion_model.blocks.0.ffn.0.lora_{part}.weight": 0.2 * normal(*shape, seed=len(part))
        for part, shape in (("down", (4, 256)), ("up", (512, 4)))
    }
    save_file(lora, tmp_path / "lora.safetensors")
    use, found = {"file": tmp_path / "lora.safetensors", "strength": 0.7}, {}
    for compute in ("fp32", "fp8"):
        for loras in ((), (use,)):
            variant = tools.open_file(wan.path, loras=loras)
            variant.load("cpu", compute)
            with torch.no_grad():
                found[compute, len(loras)] = variant.velocity(
                    inputs.x, inputs.sigma, WanConditioning(text=inputs.text)
                )
    assert relative(found["fp32", 1], found["fp32", 0]) > 0.1
    assert relative(found["fp8", 1], found["fp32", 1]) < 0.06


def test_large_weights_are_quantised_in_slices(monkeypatch, wan, tools):
    from gatekit_wan22 import fp8
    from gatekit_wan22.mapped import MappedFile

    variant = tools.open_file(wan.path)
    mapped, info = MappedFile(variant.header()), variant.tensors()["blocks.0.ffn.0.weight"]
    whole = fp8.stored_in_fp8(mapped, info, "cpu")
    monkeypatch.setattr(fp8, "SLICE", 100)
    for a, b in zip(fp8.stored_in_fp8(mapped, info, "cpu"), whole, strict=True):
        assert torch.equal(a.float(), b.float())


def test_memory_expected(wan, tools):
    facts = tools.open_file(wan.path).facts()
    matrices = sum(t.numel() for n, t in wan.state.items() if tools.is_matrix(n))
    largest = max(t.numel() for n, t in wan.state.items() if tools.is_matrix(n))
    assert facts.resident_for("fp8") == 2 * facts.parameters - matrices + 4 * largest


@pytest.mark.parametrize(
    ("device", "capability", "message"),
    [
        ("cpu", None, "needs an NVIDIA GPU, and this run is on cpu.*fp32 or bf16"),
        ("mps", None, "needs an NVIDIA GPU, and this run is on mps.*compute: bf16"),
        (
            "cuda",
            (8, 6),
            r"needs a GPU of compute capability 8\.9, and cuda has 8\.6.*compute: bf16",
        ),
    ],
)
def test_refused_where_there_is_none(device, capability, message):
    with pytest.raises(ScheduleError, match=message):
        check_fp8(device, capability)


def test_odd_shapes_are_refused():
    check_fp8("cuda", (9, 0), [("a", (32, 16))])
    check_fp8("cuda", None)
    with pytest.raises(ScheduleError, match=r"multiples of 16; blocks\.0\.ffn.* is 100 x 256"):
        check_fp8("cuda", (8, 9), [("blocks.0.ffn.0.weight", (100, 256))])


@pytest.mark.parametrize(
    ("capability", "needed"), [((9, 0), 5), (None, 5), ((8, 9), 7), ((10, 0), 9), ((12, 0), 9)]
)
def test_a_scale_a_row_came_to_each_gpu_in_its_own_torch(monkeypatch, capability, needed):
    monkeypatch.setattr("gatekit_wan22.fp8.torch_version", lambda: (2, needed, 0))
    check_fp8("cuda", capability)
    monkeypatch.setattr("gatekit_wan22.fp8.torch_version", lambda: (2, needed - 1, 1))
    with pytest.raises(ScheduleError, match=rf"needs torch 2\.{needed} here.*update torch"):
        check_fp8("cuda", capability)
