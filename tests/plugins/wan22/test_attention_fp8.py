"""Attention in fp8: what it computes, on a CPU by the reference that stands for cuDNN's kernel."""

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch

from gatekit import ScheduleError
from gatekit_wan22 import attention, attention_fp8, attention_own

H100 = (9, 0)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def exact(q, k, v):
    heads = (t.double().transpose(1, 2) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2)


def off(found, wanted):
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(attention_fp8, "FEW_KEYS", 1)


def test_it_errs_as_numbers_of_three_bits_do(few):
    q, k, v = (random(1, n, 2, 64, seed=i) for i, n in enumerate((40, 96, 96)))
    found = attention_fp8.attend(q, k, v)
    assert found.shape == q.shape and found.dtype == q.dtype
    assert 0.02 < off(found, exact(q, k, v)) < 0.09


def test_a_common_part_of_all_keys_costs_nothing(few):
    q, k, v = (random(1, n, 2, 64, seed=i) for i, n in enumerate((40, 96, 96)))
    wanted = exact(q, k, v)
    plain = off(attention_fp8.attend(q, k, v), wanted)
    far = off(attention_fp8.attend(q, k + 50 * random(1, 1, 2, 64, seed=9), v), wanted)
    assert far < 1.1 * plain


def test_scales_follow_the_numbers(few):
    q, k, v = (random(1, 64, 1, 64, seed=i) for i in range(3))
    one = attention_fp8.attend(q, k, v)
    many = attention_fp8.attend(q * 2**-6, k * 2**6, v * 2**20)
    assert torch.allclose(many * 2**-20, one, rtol=0.1, atol=0.02)
    assert torch.isfinite(attention_fp8.attend(q, k, v * 0)).all()


def test_few_keys_and_other_heads_stay_as_they_are():
    for width, keys in ((64, 77), (32, 77)):
        q, k, v = (random(1, n, 2, width, seed=i) for i, n in enumerate((40, keys, keys)))
        assert off(attention_fp8.attend(q, k, v), exact(q, k, v)) < 1e-6


def test_the_operator_stays_whole_in_a_compiled_graph(few):
    q, k, v = (random(1, 64, 1, 64, seed=i) for i in range(3))
    attention_own.dispatched()
    compiled = torch.compile(attention_fp8.attend, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v), attention_fp8.attend(q, k, v))


def test_a_compiler_is_told_the_layout_that_comes():
    q, k, v = (random(1, 32, 2, 64, seed=i).to(torch.float8_e4m3fn) for i in range(3))
    one = torch.ones(1)
    attention_fp8.operator()
    torch.library.opcheck(
        torch.ops.gatekit.attention_fp8.default,
        (q, k, v, one, one),
        test_utils="test_faketensor",
    )


class FakeCudnn(SimpleNamespace):
    """Takes what cuDNN's graph interface takes, and notes where its handles are made and used."""

    cudnnGraphNotSupportedError = NotImplementedError  # noqa: N815
    data_type = SimpleNamespace(FP8_E4M3="e4m3", FLOAT="float")
    heur_mode = SimpleNamespace(A="a", FALLBACK="b")

    def __init__(self):
        super().__init__(devices=[], workspaces=[], current=0)

    def create_handle(self):
        return self.current

    def set_stream(self, handle, stream):
        assert handle == self.current

    def pygraph(self, handle, **_):
        fake = self

        class Operand:
            def __getattr__(self, name):  # set_output, set_dim, ...
                return lambda _: self

        def execute(pack, workspace, handle):
            assert handle == fake.current
            fake.devices.append(handle)
            fake.workspaces.append(workspace)

        nothing = dict.fromkeys(
            ("validate", "build_operation_graph", "check_support", "build_plans"), lambda: None
        )
        return SimpleNamespace(
            tensor=lambda **_: Operand(), execute=execute, get_workspace_size=lambda: 64,
            sdpa_fp8=lambda **_: (Operand(), None, Operand(), Operand()),
            create_execution_plans=lambda modes: None, **nothing,
        )  # fmt: skip


@pytest.fixture
def cudnn(monkeypatch):
    fake = FakeCudnn()

    @contextlib.contextmanager
    def device(wanted):
        before, fake.current = fake.current, 1  # the tensors' place; another one is current
        yield
        fake.current = before

    monkeypatch.setitem(sys.modules, "cudnn", fake)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(attention_fp8, "_kept", attention_fp8._Kept())
    return fake


def test_cudnn_is_used_where_the_tensors_are_with_memory_of_each_calls_own(cudnn):
    q, k, v = (random(1, 32, 2, 64, seed=i).to(torch.float8_e4m3fn) for i in range(3))
    one = torch.ones(1)
    for _ in range(2):
        out = attention_fp8.by_cudnn(q, k, v, one, one)
        assert out.shape == q.shape and out.is_contiguous()
    assert cudnn.devices == [1, 1] and cudnn.current == 0
    first, second = cudnn.workspaces
    assert first.data_ptr() != second.data_ptr()


def test_what_it_needs_is_said(monkeypatch):
    with pytest.raises(ScheduleError, match=r"pip install 'nvidia-cudnn-frontend>=1\.32'"):
        attention.choose("cudnn_fp8", "cuda", "bf16", H100)
    with pytest.raises(ScheduleError, match=r"needs compute capability 9\.0"):
        attention.choose("cudnn_fp8", "cuda", "bf16", (8, 9))
    monkeypatch.setattr(attention, "find_spec", lambda name: object())
    monkeypatch.setattr(attention, "version", lambda name: "1.32.0")
    assert attention.choose("cudnn_fp8", "cuda", "fp8", H100) == "cudnn_fp8"
    assert not attention.BACKENDS["cudnn_fp8"].exact


def test_keys_of_zeros_fill_a_tile_where_they_are_few(few, monkeypatch):
    monkeypatch.setattr(attention_fp8, "TILE", 100)
    seen = []
    inner = attention_fp8.reference
    monkeypatch.setattr(
        attention_fp8,
        "reference",
        lambda q, k, *more: (seen.append(k.shape[1]), inner(q, k, *more))[1],
    )
    q, k, v = (random(1, n, 1, 64, seed=i) for i, n in enumerate((8, 1999, 1999)))
    found = attention_fp8.attend(q, k, v)
    assert off(found, exact(q, k, v)) < 0.09
    attention_fp8.attend(q, k[:, :1990], v[:, :1990])
    assert seen == [2000, 1990]
