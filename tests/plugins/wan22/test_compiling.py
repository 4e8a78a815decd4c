"""Compiled blocks: one compilation for two experts, whole graphs, the rule of ``auto``."""

from types import SimpleNamespace

import pytest
import torch

from gatekit import Execution, PhaseAsk, ScheduleError
from gatekit_wan22 import WanConditioning, attention, compiling, executions
from gatekit_wan22.compiling import choose, saved_seconds

EAGER, COMPILED = Execution("native", False), Execution("native", True)


@pytest.fixture
def compiles(monkeypatch):
    """Compiled with a backend that only counts; fullgraph makes a break in the graph an error."""
    graphs = []

    def backend(graph, examples):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(compiling, "BACKEND", backend)
    compiling.compiled_forward.cache_clear()
    yield graphs
    compiling.compiled_forward.cache_clear()
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def experts(tools, tmp_path_factory):
    """Two experts of one shape, each as floating point and in blocks."""
    from safetensors.torch import save_file

    folder, found = tmp_path_factory.mktemp("experts"), []
    for seed in range(2):
        state = tools.official(tools.random_wan(seed=seed))
        save_file(state, folder / f"{seed}.safetensors")
        blocks = lambda name, tensor: "Q2_K" if tools.is_matrix(name) else None  # noqa: E731
        tools.write_gguf(folder / f"{seed}.gguf", state, blocks)
        files = {k: folder / f"{seed}.{e}" for k, e in (("float", "safetensors"), ("gguf", "gguf"))}
        found.append(SimpleNamespace(**files))
    return found


def predicted(variant, inputs, execution, tokens=None):
    variant.configure(execution)
    with torch.no_grad():
        x = inputs.x if tokens is None else inputs.x[:, :, :tokens]
        return variant.velocity(x, inputs.sigma, WanConditioning(text=inputs.text))


@pytest.mark.parametrize("kind", ["float", "gguf"])
@pytest.mark.parametrize("compute", ["fp32", "bf16", "fp8"])
def test_one_compilation_serves_both_experts(
    experts, inputs, tools, compiles, monkeypatch, kind, compute
):
    monkeypatch.setattr("gatekit_wan22.variant.check_fp8", lambda *a: None)  # a CPU can, slowly
    for _ in range(2):  # there and back, as between phases
        for files in experts:
            variant = tools.open_file(getattr(files, kind), keep="never")
            variant.load("cpu", compute)
            eager = predicted(variant, inputs, EAGER)
            assert torch.equal(predicted(variant, inputs, COMPILED), eager)
            variant.unload()
    assert len(compiles) == 1


def test_one_compilation_serves_every_storage_type(experts, wan, inputs, tools, compiles, tmp_path):
    """As from phase to phase: two quantisations of one expert, then the other in bf16."""

    def mixed(name, tensor):
        return ("Q3_K" if ".v." in name else "Q5_K") if tools.is_matrix(name) else None

    other = tools.write_gguf(tmp_path / "mixed.gguf", wan.state, mixed)
    for path in (experts[0].gguf, other, experts[1].float):
        variant = tools.open_file(path, keep="never")
        variant.load("cpu", "bf16")
        eager = predicted(variant, inputs, EAGER)
        assert torch.equal(predicted(variant, inputs, COMPILED), eager)
    assert len(compiles) == 1


def test_a_lora_and_its_strengths_compile_nothing(experts, inputs, tools, compiles, tmp_path):
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(3)
    lora = {
        f"diffusion_model.blocks.{i}.self_attn.q.lora_{part}.weight": torch.randn(
            *shape, generator=generator
        )
        for i in range(2)
        for part, shape in (("down", (4, 256)), ("up", (256, 4)))
    }
    save_file(lora, tmp_path / "lora.safetensors")
    plain = tools.open_file(experts[0].gguf, keep="never")
    plain.load("cpu", "fp32")
    found = [predicted(plain, inputs, COMPILED)]
    use = {"file": tmp_path / "lora.safetensors", "strength": 0.5}
    variant = tools.open_file(experts[0].gguf, keep="never", loras=(use,))
    variant.load("cpu", "fp32")
    for strength in (0.5, 0.7):
        variant.adjust(
            variant.params.model_copy(
                update={
                    "loras": (variant.params.loras[0].model_copy(update={"strength": strength}),)
                }
            )
        )
        eager = predicted(variant, inputs, EAGER)
        found.append(predicted(variant, inputs, COMPILED))
        assert torch.equal(found[-1], eager)
    assert len(compiles) == 1
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[1], found[2])


def test_the_operator_of_numbered_layers_keeps_its_promises():
    from gatekit_wan22.shell import numbered_class

    layer = torch.nn.Linear(8, 5)
    number = numbered_class()(layer, 5).number
    x = torch.randn(2, 3, 8)
    checks = ("test_schema", "test_faketensor")
    with torch.no_grad():
        torch.library.opcheck(torch.ops.gatekit.layer.default, (x, number, 5), test_utils=checks)
        assert torch.equal(torch.ops.gatekit.layer(x, number, 5), layer(x))


def test_backends_and_shapes_compile_once_each(experts, inputs, tools, compiles):
    variant = tools.open_file(experts[0].float)
    variant.load("cpu", "fp32")
    for _ in range(2):
        for name in ("native", "math"):
            predicted(variant, inputs, Execution(name, True))
    assert len(compiles) == 2
    predicted(variant, inputs, COMPILED, tokens=2)
    assert len(compiles) == 3
    predicted(variant, inputs, COMPILED)
    assert len(compiles) == 3


def test_more_graphs_than_torch_keeps_by_itself(experts, inputs, tools, compiles):
    variant = tools.open_file(experts[0].float)
    variant.load("cpu", "fp32")
    one = SimpleNamespace(x=inputs.x[:1, :, :1], sigma=0.5, text=inputs.text)
    for width in range(4, 24, 2):
        x = torch.randn(1, 16, 1, 2, width, generator=torch.Generator().manual_seed(width))
        predicted(variant, SimpleNamespace(x=x, sigma=one.sigma, text=one.text), COMPILED)
    assert len(compiles) == 10


def test_streamed_weights_run_the_same_code(inputs, tools, compiles, tmp_path):
    """Resident, then streamed from the disk a block at a time: nothing new is compiled."""
    from gatekit.chunks import ChunkPool
    from gatekit.placement import Demand, ways

    state = tools.official(tools.random_wan(layers=6, dim=256, ffn=256))
    blocks = lambda name, tensor: "Q2_K" if tools.is_matrix(name) else None  # noqa: E731
    variant = tools.open_file(tools.write_gguf(tmp_path / "deep.gguf", state, blocks), keep="never")
    variant.load("cpu", "bf16")
    expected = predicted(variant, inputs, COMPILED)
    variant.unload()
    demand = Demand("it", variant.footprint("bf16", (16, 3, 4, 6)))
    variant.place("cpu", "bf16", ways(demand)[-1], ChunkPool(1 << 17, pinned=False, size=4096))
    assert variant.streamed
    for _ in range(2):
        assert torch.equal(predicted(variant, inputs, COMPILED), expected)
    assert len(compiles) == 1
    variant.unload()


def test_being_told_again_changes_nothing(experts, tools):
    variant = tools.open_file(experts[0].float)
    variant.load("cpu", "fp32")
    variant.configure(COMPILED)
    first = variant.module.blocks[0].forward
    variant.configure(COMPILED)
    assert variant.module.blocks[0].forward is first
    variant.configure(EAGER)
    assert "forward" not in vars(variant.module.blocks[0])


def test_compiled_blocks_are_let_go(experts, inputs, tools, compiles):
    import gc
    import weakref

    variant = tools.open_file(experts[0].float)
    variant.load("cpu", "fp32")
    predicted(variant, inputs, COMPILED)
    block = weakref.ref(variant.module.blocks[0])
    variant.unload()
    gc.collect()
    assert block() is None


def test_auto_pays_where_it_saves_more_than_it_takes():
    tokens = 32760
    assert saved_seconds(40, tokens, 40, 5120) == pytest.approx(13.1, rel=0.01)
    assert choose("auto", "cpu", 1e9) == (False, "")
    assert choose(False, "cuda", 1e9) == (False, "")
    assert choose(True, "cpu", 0.0) == (True, "")


def test_auto_on_a_gpu(monkeypatch):
    monkeypatch.setattr(compiling, "find_spec", lambda name: object())
    monkeypatch.setattr(compiling.shutil, "which", lambda name: "/usr/bin/cc")
    on, why = choose("auto", "cuda", 26.2)
    assert on and "saves about 26 s" in why
    off, why = choose("auto", "cuda", 4.0)
    assert not off and "would save about 4 s" in why
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    off, why = choose("auto", "cuda", 1e9)
    assert not off and "needs the package triton" in why


def test_a_deterministic_run_is_not_compiled(monkeypatch):
    monkeypatch.setattr(executions, "compute_capability", lambda device: (9, 0))
    monkeypatch.setattr(compiling, "lacking", lambda device: None)

    def chosen(**given):
        ask = PhaseAsk("low", None, False, "bf16", passes=1000, **given)
        return executions.executions([ask], 32_760, "cuda")[0]

    assert (chosen().attention, chosen().compiled) == ("native", True)
    same = chosen(deterministic=True)
    assert (same.attention, same.compiled) == ("native", False)
    with pytest.raises(ScheduleError, match="chosen by timing"):
        chosen(deterministic=True, compile=True)


def test_what_cannot_be_compiled_is_refused_where_asked_for(monkeypatch):
    with pytest.raises(ScheduleError, match="not compiled for mps"):
        choose(True, "mps", 0.0)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: None)
    with pytest.raises(ScheduleError, match=r"C compiler.*install gcc"):
        choose(True, "cpu", 0.0)
    monkeypatch.setattr(compiling, "torch_version", lambda: (2, 4, 1))
    with pytest.raises(ScheduleError, match=r"torch 2\.5"):
        choose(True, "cpu", 0.0)


def test_compiled_code_is_kept_in_the_cache_folder(monkeypatch, tmp_path):
    import os

    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("GATEKIT_CACHE", "off")
    compiling.keep_on_disk()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    monkeypatch.setenv("GATEKIT_CACHE", str(tmp_path))
    compiling.keep_on_disk()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", compiling.torch_default())  # torch's own doing
    compiling.keep_on_disk()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    compiling.keep_on_disk()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


def test_versions_are_read_without_torch():
    assert attention.numbers("2.13.0+cpu") == (2, 13, 0)
    assert attention.torch_version() == attention.numbers(torch.__version__)
