"""Streamed, placed and resident weights: the same bits, within the bytes that were allowed."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from gatekit import ScheduleError, WeightsError
from gatekit.chunks import ChunkPool
from gatekit.placement import Demand, least, place, ways
from gatekit_wan22 import WanConditioning, fp8
from gatekit_wan22.mapped import MappedFile

LAYERS, LATENT = 6, (16, 3, 4, 6)
FORMS = {
    "fp32": lambda s: s,
    "fp16": lambda s: {n: t.half() for n, t in s.items()},
    "bf16": lambda s: {n: t.bfloat16() for n, t in s.items()},
    "fp8": lambda s: {
        n: t.to(torch.float8_e4m3fn) if ".weight" in n and t.ndim == 2 else t for n, t in s.items()
    },
    "fp8, scaled": lambda s: {
        "scaled_fp8": torch.zeros(2, dtype=torch.float8_e5m2),
        **{
            n: t.to(torch.float8_e5m2) if ".weight" in n and t.ndim == 2 else t
            for n, t in s.items()
        },
        **{
            n.removesuffix("weight") + "scale_weight": torch.tensor([0.5 + len(n) / 64])
            for n, t in s.items()
            if n.startswith("blocks.") and n.endswith(".weight") and t.ndim == 2
        },
    },
}
MIXES = {
    "Q2_K": lambda n, _: None if "blocks" not in n or "norm" in n or not n.endswith("weight")
    else "Q3_K" if ".v." in n else "Q2_K",
    "Q5_K_M": lambda n, _: None if "blocks" not in n or "norm" in n or not n.endswith("weight")
    else "Q6_K" if ".v." in n and ".3." in n else "Q5_K",
}  # fmt: skip


@pytest.fixture(scope="module")
def deep(tools):
    model = tools.random_wan(layers=LAYERS, dim=256, ffn=256)
    return tools.official(model)


@pytest.fixture(scope="module")
def files(deep, tools, tmp_path_factory):
    folder = tmp_path_factory.mktemp("placed")
    made = {}
    for name, form in FORMS.items():
        made[name] = folder / f"{name}.safetensors"
        save_file(form(deep), made[name])
    for name, kinds in MIXES.items():
        made[name] = tools.write_gguf(folder / f"{name}.gguf", deep, kinds)
    return made


@pytest.fixture
def threads():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def pool(size=4096):
    return ChunkPool(32 * size, pinned=False, size=size)


def predict(variant, inputs):
    return variant.velocity(inputs.x, inputs.sigma, WanConditioning(text=inputs.text))


def whole(path, inputs, tools, compute):
    variant = tools.open_file(path)
    variant.load("cpu", compute)
    try:
        return predict(variant, inputs)
    finally:
        variant.unload()


def ways_of(variant, compute):
    every = ways(Demand("it", variant.footprint(compute, LATENT)))
    return [every[0], every[2], every[-1]]  # resident, mixed, all streamed


@pytest.fixture
def anywhere(monkeypatch):
    """torch multiplies fp8 on a CPU too."""
    for module in ("variant", "placing"):
        monkeypatch.setattr(f"gatekit_wan22.{module}.check_fp8", lambda *a: None)


@pytest.mark.parametrize("compute", ["fp32", "bf16", "fp8"])
@pytest.mark.parametrize("name", [*FORMS, *MIXES])
@pytest.mark.usefixtures("anywhere")
def test_streamed_is_resident_bit_for_bit(files, name, compute, inputs, tools, threads):
    expected = whole(files[name], inputs, tools, compute)
    variant = tools.open_file(files[name])
    for placement in ways_of(variant, compute)[1:]:
        variant.place("cpu", compute, placement, pool())
        assert variant.streamed and variant.loaded == ("cpu", compute)
        for _ in range(2):  # slots are written again in the second pass
            assert torch.equal(predict(variant, inputs), expected)
    variant.unload()


@pytest.mark.parametrize("name", ["fp16", "Q2_K"])
def test_decoded_as_it_arrives_is_the_same(files, name, inputs, tools, threads):
    expected = whole(files[name], inputs, tools, "bf16")
    variant = tools.open_file(files[name], keep="always")
    variant.place("cpu", "bf16", ways_of(variant, "bf16")[-1], pool())
    assert torch.equal(predict(variant, inputs), expected)
    variant.unload()


def bytes_of(placed):
    """Bytes on the device, each storage once."""
    model, found = placed.model, {}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type != "meta":
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


@pytest.mark.parametrize("compute", ["bf16", "fp8"])
@pytest.mark.parametrize("name", ["fp16", "Q2_K"])
@pytest.mark.usefixtures("anywhere")
def test_no_more_bytes_than_planned(files, name, compute, inputs, tools):
    variant = tools.open_file(files[name])
    for placement in ways_of(variant, compute)[1:]:
        variant.place("cpu", compute, placement, pool())
        predict(variant, inputs)
        rope = sum(b.nbytes for b in variant.module.rope.buffers())
        assert bytes_of(variant._placed) - rope <= placement.weights
        variant.unload()


def test_raw_blocks_are_streamed_not_decoded_ones(files, inputs, tools):
    variant = tools.open_file(files["Q2_K"])
    placement = ways_of(variant, "bf16")[-1]
    assert len(placement.streamed) == LAYERS
    stored = sum(t.nbytes for n, t in variant.tensors().items() if tools.is_matrix(n))
    assert placement.pass_bytes <= stored + 256 * 10 * LAYERS
    variant.place("cpu", "bf16", placement, pool())
    carrier = variant._placed.carrier
    predict(variant, inputs)
    predict(variant, inputs)
    fixed = sum(t.nbytes for n, t in variant.tensors().items() if not tools.is_matrix(n))
    assert fixed + 2 * stored <= carrier.read_bytes <= fixed + 3 * stored  # a pass ahead at most
    variant.unload()


def test_ahead_of_a_switch_only_what_was_allowed_is_there(files, inputs, tools, threads):
    expected = whole(files["fp16"], inputs, tools, "bf16")
    variant = tools.open_file(files["fp16"])
    placement = ways_of(variant, "bf16")[0]
    # As on a GPU, where what is resident arrives in the background too.
    variant._whole = lambda device, placement: False
    variant.prepare("cpu", "bf16", placement, pool(), None)
    assert variant.loaded is None and bytes_of(variant._placed) <= 2 << 20  # rope alone
    variant.prepare("cpu", "bf16", placement, pool(), (0, 1, 2))
    blocks = placement.footprint.blocks
    rope = sum(b.nbytes for b in variant._placed.model.rope.buffers())
    held = bytes_of(variant._placed) - rope
    assert held <= placement.footprint.fixed + sum(blocks[:3]) < placement.weights
    variant.place("cpu", "bf16", placement, pool())
    assert torch.equal(predict(variant, inputs), expected)
    variant.settle()  # whole: it stays, without threads
    assert variant.loaded and torch.equal(predict(variant, inputs), expected)
    variant.unload()


def test_streamed_ahead_of_a_switch(files, inputs, tools, threads):
    expected = whole(files["fp16"], inputs, tools, "bf16")
    variant = tools.open_file(files["fp16"])
    placement = ways_of(variant, "bf16")[1]
    assert placement.resident and placement.streamed
    for ahead in (None, placement.resident[:1]):
        variant.prepare("cpu", "bf16", placement, pool(), ahead)
    variant.place("cpu", "bf16", placement, pool())
    assert torch.equal(predict(variant, inputs), expected)
    variant.settle()
    assert variant.loaded is None


def test_passes_that_end_early_or_leave_blocks_out(files, inputs, tools, threads):
    expected = whole(files["fp16"], inputs, tools, "bf16")
    variant = tools.open_file(files["fp16"])
    variant.place("cpu", "bf16", ways_of(variant, "bf16")[-1], pool())

    def fail(*_):
        raise KeyboardInterrupt

    for block in (0, 3, LAYERS - 1):
        handle = list(variant.module.blocks)[block].register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            predict(variant, inputs)
        handle.remove()
        gc.collect()
        assert torch.equal(predict(variant, inputs), expected)
    walk = variant._placed
    for block in (2, 5, 1):  # in an order of its own
        walk._arrive(block)
        held = dict(list(variant.module.blocks)[block].named_parameters())
        name = "ffn.net.0.proj.weight"
        stored = variant.tensors()[f"blocks.{block}.ffn.0.weight"]
        assert torch.equal(held[name], walk.mapped.read(stored, torch.bfloat16))
        walk._leave(block)
    variant.unload()


def test_a_resident_block_behind_streamed_ones_that_are_left_out(files, inputs, tools, threads):
    """Its load comes after theirs, which wait for slots that nobody leaves."""
    expected = whole(files["fp16"], inputs, tools, "bf16")
    variant = tools.open_file(files["fp16"])
    placement = replace(ways_of(variant, "bf16")[1], streamed=(0, 1, 2), slots=2)
    variant.place("cpu", "bf16", placement, pool())
    walk = variant._placed
    walker = threading.Thread(target=lambda: (walk._begin(), walk._arrive(4)), daemon=True)
    walker.start()
    walker.join(10)
    arrived = not walker.is_alive()
    if arrived:
        assert torch.equal(predict(variant, inputs), expected)
    variant.unload()
    assert arrived


@pytest.mark.parametrize("name", ["bf16", "Q2_K"])
def test_compiled_blocks_are_compiled_once(files, name, inputs, tools):
    from torch._dynamo.testing import CompileCounter

    expected = whole(files[name], inputs, tools, "bf16")
    variant, counter = tools.open_file(files[name]), CompileCounter()
    variant.place("cpu", "bf16", ways_of(variant, "bf16")[-1], pool())
    torch._dynamo.reset()
    compiled = torch.compile(
        type(variant.module.blocks[0]).forward, fullgraph=True, dynamic=False, backend=counter
    )
    for block in variant.module.blocks:
        block.forward = compiled.__get__(block)
    for _ in range(3):
        assert torch.equal(predict(variant, inputs), expected)
    assert counter.frame_count == 1
    variant.unload()


def test_tensors_that_two_models_share_are_held_once(deep, inputs, tools, tmp_path):
    other = {n: t + 1 if n == "head.head.bias" else t for n, t in deep.items()}
    paths = [
        tools.write_gguf(tmp_path / "a.gguf", deep, MIXES["Q2_K"]),
        tools.write_gguf(tmp_path / "b.gguf", other, MIXES["Q5_K_M"]),
    ]
    first, second = (tools.open_file(path) for path in paths)
    expected = whole(paths[1], inputs, tools, "fp32")
    first.place("cpu", "fp32", ways_of(first, "fp32")[-1], pool())
    predict(first, inputs)
    second.place("cpu", "fp32", ways_of(second, "fp32")[-1], pool())
    a, b = first.module, second.module
    shared = "condition_embedder.time_proj.weight"
    assert a.get_parameter(shared).data_ptr() == b.get_parameter(shared).data_ptr()
    assert a.proj_out.bias.data_ptr() != b.proj_out.bias.data_ptr()
    assert torch.equal(predict(second, inputs), expected)
    first.unload()
    gc.collect()
    assert torch.equal(predict(second, inputs), expected)
    second.unload()


def test_a_model_goes_without_a_search_for_garbage(files, inputs, tools):
    """That search takes longer than a switch may."""
    variant = tools.open_file(files["fp16"])
    variant.place("cpu", "bf16", ways_of(variant, "bf16")[1], pool())
    predict(variant, inputs)
    fixed = variant.module.get_parameter("condition_embedder.time_proj.weight")
    gone = [weakref.ref(each) for each in (variant.module, fixed, variant._placed)]
    del fixed
    gc.collect()
    gc.disable()
    try:
        variant.unload()
        assert [ref() for ref in gone] == [None] * 3
    finally:
        gc.enable()


def test_a_file_cut_short_meanwhile_is_one_clear_error(deep, inputs, tools, tmp_path, threads):
    path = tmp_path / "cut.safetensors"
    save_file(deep, path)
    variant = tools.open_file(path)
    variant.header()
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size // 2)
    with pytest.raises(WeightsError, match="ends before the weights"):
        variant.place("cpu", "bf16", ways_of(variant, "bf16")[-1], pool())
    variant.unload()


def test_a_run_that_weights_failed_leaves_nothing(files, inputs, tools, monkeypatch, threads):
    variant = tools.open_file(files["fp16"])
    monkeypatch.setattr("gatekit.filebytes.Files._some", lambda *_: 0)  # as at a file's end
    variant._whole = lambda device, placement: False
    variant.place("cpu", "fp32", ways_of(variant, "fp32")[0], pool())
    with pytest.raises(WeightsError, match="ends before the weights"):
        predict(variant, inputs)
    variant.settle()  # does not raise once more, nor wait for what will not come
    assert variant.loaded is None and variant.module is None


def test_a_placing_that_is_interrupted_leaves_nothing(files, tools, monkeypatch, threads):
    variant = tools.open_file(files["fp16"])

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gatekit_wan22.placed.PlacedModel.admit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        variant.place("cpu", "bf16", ways_of(variant, "bf16")[-1], pool())
    assert variant.loaded is None and variant._placed is None


def test_what_cannot_be_streamed_says_so(files, tools, tmp_path):
    save_file(
        {
            "blocks.0.ffn.0.lora_down.weight": torch.randn(4, 256),
            "blocks.0.ffn.0.lora_up.weight": torch.randn(256, 4),
        },
        tmp_path / "lora.safetensors",
    )
    lora = [{"file": tmp_path / "lora.safetensors"}]
    assert (
        tools.open_file(files["fp16"], loras=lora, lora_mode="merge").footprint("bf16", LATENT)
        is None
    )
    with_lora = tools.open_file(files["fp16"], loras=lora).footprint("bf16", LATENT)
    assert with_lora.blocks and with_lora.at_once  # loaded in one go unless it is streamed
    assert not tools.open_file(files["fp16"]).footprint("bf16", LATENT).at_once


def test_in_fp8_a_block_takes_a_byte_a_weight_whatever_the_file_has(files, tools):
    for name in (*FORMS, *MIXES):
        variant = tools.open_file(files[name])
        told = variant.footprint("fp8", LATENT)
        matrices = [t for n, t in variant.tensors().items() if tools.is_matrix(n)]
        numbers = sum(t.count for t in matrices) // LAYERS
        scales = sum(4 * t.shape[0] for t in matrices) // LAYERS
        assert told.blocks == (told.blocks[0],) * LAYERS
        assert numbers + scales <= told.blocks[0] <= numbers + scales + 256 * 20


def test_fp8_is_refused_where_it_cannot_be(files, tools):
    variant = tools.open_file(files["fp16"])
    with pytest.raises(ScheduleError, match="fp8 needs an NVIDIA GPU"):
        variant.place("cpu", "fp8", ways_of(variant, "fp8")[-1], pool())
    assert variant.loaded is None and variant._placed is None


def test_auto_keeps_nothing_decoded_on_a_gpu(files, tools):
    from gatekit_wan22.model import keep_decoded

    tensors = tools.open_file(files["Q2_K"]).tensors()
    kept = {d: keep_decoded("auto", tensors, torch.bfloat16, d) for d in ("cpu", "cuda:0")}
    assert kept == {"cpu": True, "cuda:0": False}  # what is resident there is planned as stored
    assert keep_decoded("always", tensors, torch.bfloat16, "cuda:0")


@pytest.mark.parametrize("name", ["fp16", "Q2_K"])
def test_loras_beside_what_is_streamed(files, name, inputs, tools, tmp_path, threads):
    generator = torch.Generator().manual_seed(3)
    save_file(
        {
            f"blocks.{i}.ffn.0.lora_{way}.weight": torch.randn(*shape, generator=generator)
            for i in range(LAYERS)
            for way, shape in (("down", (4, 256)), ("up", (256, 4)))
        }
        | {"head.head.diff_b": torch.randn(64, generator=generator)},
        tmp_path / "lora.safetensors",
    )
    loras = [{"file": tmp_path / "lora.safetensors", "strength": 0.7}]
    beside = tools.open_file(files[name], loras=loras, lora_mode="side")
    beside.load("cpu", "bf16")
    expected = predict(beside, inputs)
    beside.unload()
    variant = tools.open_file(files[name], loras=loras)
    variant.place("cpu", "bf16", ways_of(variant, "bf16")[-1], pool())
    assert torch.equal(predict(variant, inputs), expected)
    variant.unload()


def test_the_footprint_of_a14b(tools):
    from gatekit_wan22.header import TensorInfo
    from gatekit_wan22.sizes import TransformerSizes, expected_shapes
    from gatekit_wan22.units import cut, footprint

    sizes = TransformerSizes(5120, 13824, 40, 36, 16, 4096)
    tensors = {}
    for name, shape in expected_shapes(sizes).items():
        count = torch.Size(shape).numel()
        tensors[name] = TensorInfo(name, shape, "F16", 0, 2 * count)
    units = cut(tensors, sizes, "bf16", kept=False)
    found = footprint(units, sizes, "bf16", (16, 21, 60, 104), 0)
    gib = 1 << 30
    assert len(found.blocks) == 40 and set(found.blocks) == {2 * 5120 * (8 * 5120 + 2 * 13824)}
    assert 0.9 * gib < found.fixed < 1.2 * gib  # 0.3 of it to decode in
    assert 3.3 * gib < found.working < 5 * gib  # 3.3 is diffusers' peak without weights
    demand = Demand("low", found, 40)
    assert least([demand]) < 7 * gib
    (placed,) = place([demand], 16 * gib)
    assert placed.need <= 16 * gib and 20 <= len(placed.streamed) <= 30
    stored = {n: replace(t, type="Q2_K", nbytes=t.count // 256 * 84) if tools.is_matrix(n) else t
              for n, t in tensors.items()}  # fmt: skip
    small = footprint(cut(stored, sizes, "bf16", kept=False), sizes, "bf16", (16, 21, 60, 104), 0)
    (placed,) = place([Demand("low", small, 40)], 16 * gib)
    assert not placed.streamed


def test_blocks_that_a_step_cache_runs_are_there(files, inputs, tools):
    """In an order of its own, with blocks left out."""

    def body(blocks, hidden):
        for block in (*blocks[:1], *blocks[3:]):
            hidden = block(hidden)
        return blocks[1](hidden)

    conditioning = WanConditioning(text=inputs.text)
    variant = tools.open_file(files["fp16"])
    variant.load("cpu", "bf16")
    expected = variant.through(inputs.x, inputs.sigma, conditioning, body)
    variant.unload()
    for placement in ways_of(variant, "bf16")[1:]:
        variant.place("cpu", "bf16", placement, pool())
        for _ in range(2):
            found = variant.through(inputs.x, inputs.sigma, conditioning, body)
            assert torch.equal(found, expected)
        whole_chain = predict(variant, inputs)
        assert whole_chain.isfinite().all()
    variant.unload()


@pytest.mark.parametrize("name", [*FORMS, *MIXES])
def test_a_matrix_in_fp8_is_its_weights_quantised_row_by_row(files, name, tools, monkeypatch):
    """Also where slices do not divide the rows; a file that is e4m3 keeps its numbers."""
    monkeypatch.setattr(fp8, "SLICE", 100)
    variant = tools.open_file(files[name])
    mapped = MappedFile(variant.header())
    for which in ("blocks.0.ffn.0.weight", "blocks.1.self_attn.v.weight"):
        info = variant.tensors()[which]
        q, scale = fp8.stored_in_fp8(mapped, info, "cpu")
        exact = mapped.read(info, torch.float32)
        if info.type == "F8_E4M3":
            assert torch.equal(q.float() * scale, exact)
            continue
        wanted, its = fp8.quantised(exact)
        assert torch.equal(q.float(), wanted.float()) and torch.equal(scale, its)
