"""Which passes of a variant are replayed, with a recorder that stands for a GPU's graphs."""

import gc
import logging
import weakref

import pytest
import torch
from graph_recorder import Recorder
from safetensors.torch import save_file

from gatekit import Execution, PhaseAsk
from gatekit.chunks import ChunkPool
from gatekit.placement import Demand, ways
from gatekit_wan22 import WanConditioning, compiling, executions, passes

LAUNCHED, REPLAYED = Execution("native"), Execution("native", replayed=True)


@pytest.fixture
def recorder(monkeypatch):
    found = Recorder()
    monkeypatch.setattr(passes, "capture_on", lambda device: found)
    return found


@pytest.fixture
def variant(wan, tools):
    made = tools.open_file(wan.path)
    made.load("cpu", "fp32")
    made.configure(REPLAYED)
    yield made
    made.unload()


def velocity(variant, inputs, value=0.0, **given):
    with torch.no_grad():
        conditioning = WanConditioning(text=inputs.text + value, **given)
        return variant.velocity(inputs.x + value, 0.7 - 0.1 * value, conditioning)


def launched(variant, inputs, value=0.0, execution=LAUNCHED, **given):
    """What the variant predicts as it is, in another one."""
    other = type(variant)(variant.params)
    other.load(*variant.loaded)
    other.configure(execution)
    try:
        return velocity(other, inputs, value, **given)
    finally:
        other.unload()


@pytest.mark.parametrize("compute", ["fp32", "bf16"])
@pytest.mark.parametrize("stored", [False, True])
def test_replayed_is_launched_bit_for_bit(recorder, wan, inputs, tools, tmp_path, compute, stored):
    path = wan.path
    if stored:
        kinds = lambda name, _: "Q2_K" if tools.is_matrix(name) else None  # noqa: E731
        path = tools.write_gguf(tmp_path / "it.gguf", wan.state, kinds)
    variant = tools.open_file(path, keep="never")
    variant.load("cpu", compute)
    variant.configure(REPLAYED)
    found = [velocity(variant, inputs, value) for value in range(4)]
    assert (recorder.captured, recorder.replayed) == (1, 3)
    for value in range(4):
        assert torch.equal(found[value], launched(variant, inputs, value))
    variant.unload()


def test_nothing_is_replayed_unless_it_is_asked_for(recorder, variant, inputs):
    variant.configure(LAUNCHED)
    for _ in range(3):
        velocity(variant, inputs)
    assert recorder.captured == 0


def test_nothing_is_captured_on_a_cpu():
    assert passes.capture_on("cpu") is None and passes.capture_on("mps") is None


def test_many_tokens_are_launched(recorder, variant, inputs, monkeypatch):
    batch, _, frames, height, width = inputs.x.shape
    count = batch * frames * height * width // 4
    for most, captured in ((count - 1, 0), (count, 1)):
        monkeypatch.setattr(passes, "MOST", most)
        for _ in range(3):
            velocity(variant, inputs)
        assert recorder.captured == captured


def test_attention_and_compilation_have_graphs_of_their_own(recorder, variant, inputs, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "eager")
    compiling.compiled_forward.cache_clear()
    ways = [Execution(name, on, replayed=True) for name in ("native", "math") for on in (0, 1)]
    for value in range(3):
        for way in ways:
            variant.configure(way)
            found = velocity(variant, inputs, value)
            assert torch.equal(found, launched(variant, inputs, value, way))
    assert recorder.captured == 4
    compiling.compiled_forward.cache_clear()
    torch._dynamo.reset()


def test_a_body_runs_blocks_that_are_launched(recorder, variant, inputs):
    seen = []

    def body(blocks, hidden):
        seen.append(len(blocks))
        for block in blocks:
            hidden = block(hidden)
        return hidden

    wanted = launched(variant, inputs)
    with torch.no_grad():
        for _ in range(3):
            conditioning = WanConditioning(text=inputs.text)
            assert torch.equal(variant.through(inputs.x, 0.7, conditioning, body), wanted)
    assert seen == [2, 2, 2] and recorder.captured == 0
    for _ in range(2):
        assert torch.equal(velocity(variant, inputs), wanted)
    assert recorder.captured == 1


def test_a_time_for_each_token_is_looked_up_on_the_host(recorder, inputs, tools, tmp_path):
    save_file(tools.official(tools.random_wan()), tmp_path / "it.safetensors")
    variant = tools.open_file(tmp_path / "it.safetensors")
    variant.load("cpu", "fp32")
    variant.configure(REPLAYED)
    first = torch.ones(1, 16, 1, 4, 6)
    wanted = launched(variant, inputs, first_frame=first)
    for _ in range(3):
        assert torch.equal(velocity(variant, inputs, first_frame=first), wanted)
    assert recorder.captured == 0
    variant.unload()


def test_gradients_are_not_replayed(recorder, variant, inputs):
    x = inputs.x.clone().requires_grad_()
    for _ in range(3):
        out = variant.velocity(x, 0.7, WanConditioning(text=inputs.text))
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        assert grad.abs().sum() > 0
    assert recorder.captured == 0


def test_loras_are_not_replayed(recorder, wan, inputs, tools, tmp_path):
    generator = torch.Generator().manual_seed(3)
    shapes = {"down": (4, 256), "up": (512, 4)}
    lora = {
        f"blocks.0.ffn.0.lora_{way}.weight": torch.randn(*shape, generator=generator)
        for way, shape in shapes.items()
    }
    save_file(lora, tmp_path / "lora.safetensors")
    variant = tools.open_file(wan.path, loras=[{"file": tmp_path / "lora.safetensors"}])
    variant.load("cpu", "fp32")
    variant.configure(REPLAYED)
    for _ in range(3):
        velocity(variant, inputs)
    assert recorder.captured == 0
    variant.unload()


@pytest.fixture(scope="module")
def deep(tools, tmp_path_factory):
    path = tmp_path_factory.mktemp("deep") / "deep.safetensors"
    save_file(tools.official(tools.random_wan(layers=6, ffn=256)), path)
    return path


def placed(path, tools, which):
    """A variant placed on a CPU as on a GPU: the first way is resident, the last all streamed."""
    variant = tools.open_file(path)
    demand = Demand("it", variant.footprint("fp32", (16, 3, 4, 6)))
    pool = ChunkPool(1 << 17, pinned=False, size=4096)
    variant._whole = lambda device, placement: False
    variant.place("cpu", "fp32", ways(demand)[which], pool)
    variant.configure(REPLAYED)
    return variant


def test_a_pass_that_waits_for_weights_is_launched(recorder, deep, inputs, tools):
    variant, counts = placed(deep, tools, 0), []
    assert not variant.streamed and not variant.still
    wanted = launched(variant, inputs)
    for _ in range(4):
        assert torch.equal(velocity(variant, inputs), wanted)
        counts.append((recorder.captured, recorder.replayed))
    assert counts == [(0, 0), (0, 0), (1, 1), (1, 2)]
    variant.settle()  # a run ends; the next goes on with the same graph
    assert torch.equal(velocity(variant, inputs), wanted) and recorder.replayed == 3
    variant.unload()


def test_streamed_weights_are_not_replayed(recorder, deep, inputs, tools):
    variant = placed(deep, tools, -1)
    assert variant.streamed
    wanted = launched(variant, inputs)
    for _ in range(4):
        assert torch.equal(velocity(variant, inputs), wanted)
    assert recorder.captured == 0
    variant.unload()


@pytest.mark.parametrize("leave", ["unload", "configure"])
def test_graphs_go_before_weights_and_are_captured_anew(recorder, variant, inputs, leave):
    for _ in range(3):
        velocity(variant, inputs)
    assert variant.graphs == 1
    if leave == "unload":
        seen = []
        variant.drop_placed = lambda: seen.append(variant.graphs)
        variant.unload()
        assert seen == [0]
        variant.load("cpu", "fp32")
    else:
        variant.configure(LAUNCHED)
        assert variant.graphs == 0
    variant.configure(REPLAYED)
    wanted = launched(variant, inputs, 1.0)
    for _ in range(2):
        assert torch.equal(velocity(variant, inputs, 1.0), wanted)
    assert recorder.captured == 2


def test_a_model_with_graphs_goes_without_a_search_for_garbage(recorder, deep, inputs, tools):
    variant = placed(deep, tools, 0)
    for _ in range(4):
        velocity(variant, inputs)
    assert recorder.replayed
    gone = weakref.ref(variant.module)
    gc.collect()
    gc.disable()
    try:
        variant.unload()
        assert gone() is None
    finally:
        gc.enable()


def test_what_failed_is_not_tried_after_loading_again(variant, inputs, monkeypatch, caplog):
    def capture(work):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(passes, "capture_on", lambda device: capture)
    with caplog.at_level(logging.WARNING, "gatekit"):
        for _ in range(2):
            wanted = launched(variant, inputs)
            for _ in range(3):
                assert torch.equal(velocity(variant, inputs), wanted)
            variant.unload()
            variant.load("cpu", "fp32")
    assert len(caplog.messages) == 1


def planned(variant, tokens=510, device="cuda", **given):
    ask = PhaseAsk("low", variant, False, "bf16", passes=40, **given)
    (found,) = executions.executions([ask], tokens, device)
    return found


def test_a_plan_says_what_will_be_replayed(wan, tools, monkeypatch):
    monkeypatch.setattr(executions, "compute_capability", lambda device: (9, 0))
    monkeypatch.setattr(compiling, "lacking", lambda device: None)
    plain = tools.open_file(wan.path)
    found = planned(plain)
    assert found.replayed and "as 510 tokens are few" in found.remarks[-1]
    assert planned(plain, compile=True).replayed and planned(plain, compile=True).compiled
    assert planned(plain, passes.MOST).replayed
    lora = tools.open_file(wan.path, loras=[{"file": wan.path}])
    others = [
        planned(plain, passes.MOST + 1),
        planned(plain, device="cpu"),
        planned(plain, compile=False),
        planned(plain, deterministic=True),
        planned(plain, cached=True),
        planned(lora),
    ]
    for execution in others:
        assert not execution.replayed and "replayed" not in " ".join(execution.remarks)


def test_a_plan_of_an_image_as_first_frame_says_so(wan, tools):
    ask = PhaseAsk("low", tools.open_file(wan.path), False, "bf16")
    (found,) = executions.executions([ask], 510, "cuda", first_frame=True)
    assert any("and no image is given" in line for line in found.remarks)


def test_memory_is_planned_for_graphs(wan, tools):
    variant = tools.open_file(wan.path)
    few, many = (16, 3, 32, 128), (16, 4, 32, 128)  # 3,072 and 4,096 tokens
    one, other = (variant.footprint("bf16", latent) for latent in (few, many))
    assert one.fixed - other.fixed == one.working > 0


def test_attention_whose_plans_live_with_a_thread_is_not_replayed(wan, tools, monkeypatch):
    monkeypatch.setattr(executions, "compute_capability", lambda device: (9, 0))
    monkeypatch.setattr("gatekit_wan22.attention.lacking", lambda *given: None)
    found = planned(tools.open_file(wan.path), passes.MOST, attention="cudnn_fp8")
    assert found.attention == "cudnn_fp8" and not found.replayed
    model = object()
    monkeypatch.setattr(passes, "launch", lambda given, x: (given, x))
    how = Execution("cudnn_fp8", replayed=True)
    assert passes.Passes().run(model, "cuda", how, 7) == (model, 7)
