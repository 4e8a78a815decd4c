"""A LoRA's velocity is that of the weights with up @ down added, however it is run."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from gatekit_wan22.lora.branch import new_lora_linear
from gatekit_wan22.stored_linear import new_stored_linear


def near(found, wanted, limit):
    return (found - wanted).norm() < limit * wanted.norm()


@pytest.fixture(scope="module")
def merged(wan, kit, tmp_path_factory):
    """LoRA on every matrix there is, alpha 2 at rank 4, and the velocity of the merged model."""
    pairs = kit.pairs(wan.state)
    folder = tmp_path_factory.mktemp("merged")
    save_file(kit.with_deltas(wan.state, kit.products(pairs, 0.5 * 0.8)), folder / "m.safetensors")
    lora = kit.write(folder / "lora.safetensors", pairs, alpha=torch.tensor(2.0))
    return pairs, lora, folder / "m.safetensors"


@pytest.fixture(scope="module")
def truth(merged, inputs, kit):
    return kit.velocity(kit.open(merged[2]), inputs)


@pytest.mark.parametrize("mode", ["auto", "side", "merge"])
def test_equals_the_merged_model(mode, merged, truth, wan, inputs, kit):
    plain = kit.velocity(kit.open(wan.path), inputs)
    variant = kit.open(wan.path, loras=[{"file": merged[1], "strength": 0.8}], lora_mode=mode)
    found = kit.velocity(variant, inputs)
    assert near(found, truth, 3e-6) and not near(plain, truth, 0.1)


@pytest.mark.parametrize("layout", ["kohya", "wan_fun", "official", "bare", "diffusers", "peft",
                                    "diffusers_flat"])  # fmt: skip
def test_every_layout_says_the_same(layout, merged, wan, inputs, kit, tmp_path):
    alpha = torch.tensor(2.0)
    path = kit.write(tmp_path / "l.safetensors", merged[0], kit.layouts[layout], alpha)
    bits = []
    for file in (merged[1], path):
        variant = kit.open(wan.path, loras=[{"file": file, "strength": 0.8}])
        bits.append(kit.velocity(variant, inputs))
    assert torch.equal(*bits)


@pytest.mark.parametrize(
    ("kind", "keep"), [("Q2_K", "never"), ("Q5_K", "never"), ("Q8_0", "never"), ("Q4_0", "always")]
)
def test_on_gguf_equals_merged_into_the_dequantised_weights(
    kind, keep, merged, wan, inputs, tools, kit, tmp_path
):
    path = tools.write_gguf(
        tmp_path / "q.gguf", wan.state, lambda n, t: kind if tools.is_matrix(n) else "F16"
    )
    decoded = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        shape = tuple(int(n) for n in tensor.shape[::-1])
        decoded[tensor.name] = torch.from_numpy(values.copy()).view(shape)
    save_file(kit.with_deltas(decoded, kit.products(merged[0], 0.4)), tmp_path / "d.safetensors")
    wanted = kit.velocity(kit.open(tmp_path / "d.safetensors"), inputs)
    loras = [{"file": merged[1], "strength": 0.8}]
    for mode in ("side", "merge"):
        variant = kit.open(path, keep=keep, loras=loras, lora_mode=mode)
        assert near(kit.velocity(variant, inputs), wanted, 3e-6)
    half = kit.velocity(kit.open(path, keep=keep, loras=loras), inputs, "bf16")
    assert near(half, wanted, 2e-2)


@pytest.mark.parametrize("stored", ["F16", "BF16", "F8_E4M3"])
def test_on_half_and_fp8_weights(stored, merged, wan, inputs, kit, tmp_path):
    """Merging is in float32, rounded once; beside, each part is rounded by itself."""
    dtype = {"F16": torch.float16, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}[stored]
    low = {n: p.to(dtype) if n in kit.products(merged[0]) else p for n, p in wan.state.items()}
    save_file(low, tmp_path / "w.safetensors")
    wide = {n: p.float() for n, p in low.items()}
    save_file(kit.with_deltas(wide, kit.products(merged[0], 0.4)), tmp_path / "m.safetensors")
    loras = [{"file": merged[1], "strength": 0.8}]
    for compute, limit in (("fp32", 3e-6), ("bf16", 2e-2)):
        wanted = kit.velocity(kit.open(tmp_path / "m.safetensors"), inputs, compute)
        for mode in ("side", "merge"):
            variant = kit.open(tmp_path / "w.safetensors", loras=loras, lora_mode=mode)
            found = kit.velocity(variant, inputs, compute)
            assert near(found, wanted, limit)
            if mode == "merge" and stored != "F8_E4M3":
                # The product's sums may differ in order: a rounding here and there.
                assert near(found, wanted, 1e-3 if compute == "bf16" else 3e-6)


@pytest.mark.parametrize(
    "alpha",
    [torch.tensor(8), torch.tensor([8]), torch.tensor(8.0).half(), torch.tensor([8.0]).bfloat16(),
     torch.tensor(8, dtype=torch.int32), torch.tensor(8.0, dtype=torch.float64)],
    ids=lambda a: f"{a.dtype}{list(a.shape)}",
)  # fmt: skip
def test_alpha_of_any_type(alpha, wan, inputs, kit, tmp_path):
    """Lightning stores alpha 8 at rank 64 as I64; a reader that drops it is 8 times too strong."""
    pairs = kit.pairs(wan.state, kit.matrices[:3], rank=64)
    path = kit.write(tmp_path / "l.safetensors", pairs, alpha=alpha)
    save_file(kit.with_deltas(wan.state, kit.products(pairs, 1 / 8)), tmp_path / "m.safetensors")
    wanted = kit.velocity(kit.open(tmp_path / "m.safetensors"), inputs)
    found = kit.velocity(kit.open(wan.path, loras=[{"file": path}]), inputs)
    assert near(found, wanted, 3e-6)
    dropped = kit.write(tmp_path / "d.safetensors", pairs)
    eighth = kit.open(wan.path, loras=[{"file": dropped, "strength": 1 / 8}])
    assert near(kit.velocity(eighth, inputs), wanted, 3e-6)


@pytest.mark.parametrize(
    ("meta", "scale"),
    [
        ({"transformer.r": 4, "transformer.lora_alpha": 6}, 1.5),
        ({"r": 4, "lora_alpha": 6, "use_rslora": True}, 3.0),
        ({}, 1.0),
    ],
)
@pytest.mark.parametrize("place", ["metadata", "beside"])
def test_alpha_that_peft_notes(meta, scale, place, wan, inputs, kit, tmp_path):
    import json

    pairs = kit.pairs(wan.state, kit.matrices[:3])
    name = "l.safetensors" if place == "metadata" else "adapter_model.safetensors"
    noted = {"lora_adapter_metadata": json.dumps(meta)} if place == "metadata" else None
    path = kit.write(tmp_path / name, pairs, kit.layouts["peft"], meta=noted)
    if place == "beside":
        (tmp_path / "adapter_config.json").write_text(json.dumps(meta))
    plain = kit.write(tmp_path / "plain.safetensors", pairs)
    wanted = kit.velocity(kit.open(wan.path, loras=[{"file": plain, "strength": scale}]), inputs)
    variant = kit.open(wan.path, loras=[{"file": path}])
    assert len(variant.files()) == (3 if place == "beside" else 2)
    assert near(kit.velocity(variant, inputs), wanted, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn,
                                   torch.float8_e5m2])  # fmt: skip
def test_stored_types_of_a_lora(dtype, wan, inputs, kit, tmp_path):
    pairs = kit.pairs(wan.state, kit.matrices[:5])
    low = {m: (d.to(dtype), u.to(dtype)) for m, (d, u) in pairs.items()}
    path = kit.write(tmp_path / "l.safetensors", pairs, dtype=dtype)
    save_file(kit.with_deltas(wan.state, kit.products(low)), tmp_path / "m.safetensors")
    wanted = kit.velocity(kit.open(tmp_path / "m.safetensors"), inputs)
    assert near(kit.velocity(kit.open(wan.path, loras=[{"file": path}]), inputs), wanted, 3e-6)


def test_differences_of_weights_biases_norms_and_modulation(wan, inputs, tools, kit, tmp_path):
    """.diff, .diff_b, .diff_m and .modulation.diff, on floats and on blocks, with a pair beside."""
    generator = torch.Generator().manual_seed(3)
    changed = {
        "blocks.0.norm3.diff": "blocks.0.norm3.weight",
        "blocks.0.norm3.diff_b": "blocks.0.norm3.bias",
        "blocks.1.self_attn.norm_q.diff": "blocks.1.self_attn.norm_q.weight",
        "blocks.0.self_attn.q.diff_b": "blocks.0.self_attn.q.bias",
        "blocks.1.ffn.0.diff": "blocks.1.ffn.0.weight",
        "blocks.0.diff_m": "blocks.0.modulation",
        "blocks.1.modulation.diff": "blocks.1.modulation",
        "head.diff_m": "head.modulation",
        "head.head.diff": "head.head.weight",
        "patch_embedding.diff": "patch_embedding.weight",
        "patch_embedding.diff_b": "patch_embedding.bias",
    }
    extra, delta = {}, {}
    for key, name in changed.items():
        value = torch.randn(wan.state[name].shape, generator=generator) * wan.state[name].std() / 4
        extra[f"diffusion_model.{key}"] = delta[name] = value
    pairs = kit.pairs(wan.state, ["blocks.0.self_attn.q", "blocks.1.ffn.0"])
    path = kit.write(tmp_path / "l.safetensors", pairs, extra=extra)
    loras = [{"file": path, "strength": 0.5}]

    def halved(values):
        return {name: value * 0.5 for name, value in values.items()}

    wanted_state = kit.with_deltas(wan.state, halved(delta), kit.products(pairs, 0.5))
    save_file(wanted_state, tmp_path / "m.safetensors")
    wanted = kit.velocity(kit.open(tmp_path / "m.safetensors"), inputs)
    for mode in ("side", "merge"):
        found = kit.velocity(kit.open(wan.path, loras=loras, lora_mode=mode), inputs)
        assert near(found, wanted, 3e-6)
    blocks = tools.write_gguf(
        tmp_path / "q.gguf", wan.state, lambda n, t: "Q8_0" if tools.is_matrix(n) else None
    )
    plain = kit.velocity(kit.open(blocks, keep="always", loras=loras, lora_mode="merge"), inputs)
    found = kit.velocity(kit.open(blocks, keep="never", loras=loras), inputs)
    assert near(found, plain, 3e-6)


def test_strength_0_is_no_lora_bit_for_bit(merged, wan, inputs, tools, kit, tmp_path):
    half = tmp_path / "h.safetensors"
    save_file({n: p.half() for n, p in wan.state.items()}, half)
    blocks = tools.write_gguf(
        tmp_path / "q.gguf", wan.state, lambda n, t: "Q4_K" if tools.is_matrix(n) else None
    )
    for path, compute in ((half, "bf16"), (blocks, "fp32"), (blocks, "bf16")):
        wanted = kit.velocity(kit.open(path), inputs, compute)
        for mode in ("side", "merge"):
            loras = [{"file": merged[1], "strength": 0}]
            variant = kit.open(path, loras=loras, lora_mode=mode, keep="never")
            assert torch.equal(kit.velocity(variant, inputs, compute), wanted)


def test_several_commute_and_add_up(merged, wan, inputs, kit, tmp_path):
    pairs = kit.pairs(wan.state, rank=3, seed=7)
    second = kit.write(tmp_path / "b.safetensors", pairs, kit.layouts["kohya"], torch.tensor(3))
    both = [{"file": merged[1], "strength": 0.8}, {"file": second, "strength": -0.5}]
    deltas = (kit.products(merged[0], 0.4), kit.products(pairs, -0.5))
    save_file(kit.with_deltas(wan.state, *deltas), tmp_path / "m.safetensors")
    wanted = kit.velocity(kit.open(tmp_path / "m.safetensors"), inputs)
    for mode in ("side", "merge"):
        for loras in (both, both[::-1]):
            variant = kit.open(wan.path, loras=loras, lora_mode=mode)
            assert near(kit.velocity(variant, inputs), wanted, 3e-6)
    # One of strength 0 beside another is not there, to the last bit.
    alone = kit.velocity(kit.open(wan.path, loras=both[:1]), inputs)
    pair = [both[0], {**both[1], "strength": 0}]
    assert torch.equal(kit.velocity(kit.open(wan.path, loras=pair), inputs), alone)


@given(
    st.integers(1, 4), st.integers(1, 40), st.integers(1, 3), st.integers(1, 17),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40)
def test_a_branch_is_the_sum_of_its_pairs(n, out, loras, rank, dtype, seed):
    """On a plain layer and on a stored one, against float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    weight, bias, x = random(out, 32) / 6, random(out), random(2, n, 32)
    downs = [random(rank, 32) / 6 for _ in range(loras)]
    ups = [random(out, rank) / rank**0.5 for _ in range(loras)]
    strengths = [float(torch.randn((), generator=generator)) for _ in range(loras)]
    plain = torch.nn.Linear(32, out, dtype=dtype).requires_grad_(False)
    plain.weight.data, plain.bias.data = weight, bias
    blocks = gguf.quants.quantize(weight.float().numpy(), gguf.GGMLQuantizationType.Q8_0)
    stored = new_stored_linear(
        torch.from_numpy(blocks.copy()).flatten(), "Q8_0", (out, 32), bias, dtype
    )
    for base, held in ((plain, weight), (stored, stored.decoded())):
        full = held.double() + sum(
            0.5 * s * u.double() @ d.double() for s, u, d in zip(strengths, ups, downs, strict=True)
        )
        wanted = x.double() @ full.t() + bias.double()
        branch = new_lora_linear(base, downs, ups, [0.5] * loras)
        assert torch.equal(branch(x), base(x))
        branch.set(strengths)
        found = branch(x)
        assert found.dtype == dtype and found.shape == wanted.shape
        unit = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
        assert (found.double() - wanted).abs().max() <= unit * (1 + wanted.abs().max())
        branch.set([0.0] * loras)
        assert torch.equal(branch(x), base(x))
