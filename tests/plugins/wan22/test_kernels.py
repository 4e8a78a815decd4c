"""The Triton kernels, run by Triton's interpreter on the CPU, against gguf-py.

The interpreter is chosen when Triton is imported, so these tests run in a process of their own:
``test_in_the_interpreter`` starts it. It rounds to bf16 wrongly and cannot multiply bf16, so bf16
is left to ``tests/bench/gguf_kernels.py`` on a GPU; rounding is tested with fp16 here.
"""

import sys
import warnings

import numpy as np
import pytest
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf_bytes import TYPES, blocks_of, by_gguf_py
from in_interpreter import INTERPRETED, check_in_interpreter, interpreted, starts_interpreter

from gatekit_wan22 import kernels
from gatekit_wan22.blocks import CODEBOOK
from gatekit_wan22.dequantise import dequantise
from gatekit_wan22.operators import linear


def expanded(data, name, dtype=torch.float32, units=256):
    """By the kernel, with a guard behind the result."""
    from gatekit_wan22.kernels.expand import expand
    from gatekit_wan22.kernels.kinds import KINDS

    kind = KINDS[name]
    count = data.numel() // kind.size * kind.weights
    memory = torch.full((count + 64,), 7.0, dtype=dtype)
    with np.errstate(all="ignore"):
        expand(data, kind, memory[:count], units=units)
    assert (memory[count:] == 7).all()
    return memory[:count]


def assert_same_bits(found, wanted):
    as_int = {torch.float32: torch.int32, torch.float16: torch.int16}[found.dtype]
    same = found.view(as_int) == wanted.view(as_int)
    assert (same | (found.isnan() & wanted.isnan())).all()


@starts_interpreter
def test_in_the_interpreter():
    check_in_interpreter(__file__)


@interpreted
def test_every_type_has_a_kernel_of_the_true_sizes():
    from gatekit_wan22.kernels.kinds import KINDS

    assert sorted(KINDS) == TYPES
    sizes = {name: (kind.weights, kind.size) for name, kind in KINDS.items()}
    assert sizes == {name: GGML_QUANT_SIZES[GGMLQuantizationType[name]] for name in TYPES}


@interpreted
def test_the_table_of_iq4_is_that_of_the_torch_path():
    """Of all sixteen nibbles at d = 1: the words that hold it are written twice."""
    one = np.frombuffer(np.float16(1).tobytes() + bytes(i << 4 | i for i in range(16)), np.uint8)
    found = expanded(torch.from_numpy(one.copy()), "IQ4_NL")
    assert found.tolist() == [*CODEBOOK, *CODEBOOK]


@interpreted
@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(("count", "units"), [(1, 256), (37, 64), (130, 512)])
def test_any_bytes(name, count, units):
    data = blocks_of(name, count)
    assert_same_bits(expanded(data, name, units=units), by_gguf_py(data, name))


@interpreted
@pytest.mark.parametrize("name", TYPES)
def test_fp16_is_rounded_from_float32(name):
    data = blocks_of(name, 21)
    with np.errstate(all="ignore"):
        assert_same_bits(expanded(data, name, torch.float16), by_gguf_py(data, name).half())


@interpreted
@pytest.mark.parametrize("name", ["Q2_K", "Q3_K"])
@pytest.mark.parametrize("offset", [1, 2, 4])
def test_blocks_that_begin_anywhere(name, offset):
    data = blocks_of(name, 5)
    moved = torch.cat([torch.zeros(offset, dtype=torch.uint8), data])[offset:]
    assert_same_bits(expanded(moved, name), by_gguf_py(data, name))


@interpreted
@pytest.mark.parametrize("name", TYPES)
def test_the_fused_product(name):
    rows, columns, tokens, biased = 40, 512, 5, name != "Q2_K"
    data = blocks_of(name, rows * columns // GGML_QUANT_SIZES[GGMLQuantizationType[name]][0], True)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, columns, generator=generator).half()
    bias = torch.randn(rows, generator=generator).half() if biased else None
    w = by_gguf_py(data, name).half().double().view(rows, columns)
    exact = x.double() @ w.t() + (0 if bias is None else bias.double())
    found = linear(x, data, name, rows, bias)
    assert found.dtype == torch.float16
    assert (found - exact).norm() < 1e-3 * exact.norm()  # fp16's rounding is 2e-4


@interpreted
@pytest.mark.parametrize(("tokens", "parts"), [(0, 1), (1, 4), (16, 1), (33, 2)])
def test_tiles_and_parts(parts, tokens):
    from gatekit_wan22.kernels.kinds import KINDS
    from gatekit_wan22.kernels.product import product

    rows, columns = 33, 1024
    data = blocks_of("Q2_K", rows * columns // 256, finite=True)
    x = torch.randn(tokens, columns, generator=torch.Generator().manual_seed(0)).half()
    bias = torch.arange(rows).half()
    tile = {"m": 16, "n": 32, "parts": parts, "warps": 4, "stages": 1}
    found = product(x, data, KINDS["Q2_K"], rows, bias, tile)
    exact = x.double() @ by_gguf_py(data, "Q2_K").half().double().view(rows, columns).t() + bias
    assert found.shape == (tokens, rows)
    assert (found - exact).norm() <= 1e-3 * exact.norm()


@interpreted
def test_few_and_many_tokens_agree():
    from gatekit_wan22 import operators

    data = blocks_of("Q4_K", 32 * 2, finite=True)
    x = torch.randn(2, operators.FEW_TOKENS, 512, generator=torch.Generator().manual_seed(0)).half()
    many = linear(x, data, "Q4_K", 32)
    few = torch.stack([linear(part, data, "Q4_K", 32) for part in x])
    assert many.shape == few.shape == (2, operators.FEW_TOKENS, 32)
    assert (many - few).double().norm() < 1e-3 * few.double().norm()


@interpreted
def test_each_kind_is_launched_with_its_own_kernel(monkeypatch):
    """Also one that is made where another was, as a dropped one's id is given out again."""
    from types import SimpleNamespace

    from gatekit_wan22.kernels import expand, kinds

    class Compiles:
        def __getitem__(self, grid):
            def made(words, out, total, WEIGHTS, **_):  # noqa: N803
                out.fill_(WEIGHTS)
                return {grid: lambda words, out, total, *_: out.fill_(WEIGHTS)}

            return made

    monkeypatch.setattr(expand, "expand_kernel", Compiles())
    monkeypatch.setattr(expand, "_RELAUNCHES", True)
    monkeypatch.setattr(expand, "_launches", {})
    out = torch.zeros(1)
    for run in range(20):
        weights = 32 + 32 * (run % 2)
        kind = kinds.Kind(SimpleNamespace(), None, weights, 16, 2, 2)
        blocks = torch.zeros(32 // (weights // 32), dtype=torch.uint8)
        for _ in range(2):
            assert expand.expand(blocks, kind, out) == weights
        del kind


@interpreted
def test_rows_in_fp8_are_as_torch_has_them():
    """Of numbers that e4m3 has: the interpreter rounds others wrongly."""
    from gatekit_wan22.fp8 import quantised
    from gatekit_wan22.kernels.quantise_rows import quantise_rows

    codes = torch.randint(8, 127, (6, 600), generator=torch.Generator().manual_seed(0))
    codes[:, 5] = 126  # 448
    wanted = codes.to(torch.uint8).view(torch.float8_e4m3fn).float()[:, :300]
    factors = torch.tensor([[1.0], [-4.0], [2.0**20], [0.5], [2.0**-30], [0.0]])
    q, scales = quantise_rows(wanted * factors)
    assert torch.equal(q.float() * scales, wanted * factors)
    assert torch.equal(scales, quantised(wanted * factors)[1])


@interpreted
def test_rows_with_nan_do_not_become_numbers():
    from gatekit_wan22.kernels.quantise_rows import quantise_rows

    x = torch.ones(3, 40)
    x[1, 7], x[2] = torch.nan, torch.nan
    with np.errstate(all="ignore"):
        q, scales = quantise_rows(x)
    assert (q.float() * scales).isnan().all(1).tolist() == [False, True, True]


@interpreted
def test_one_door():
    """``dequantise`` takes the kernel, and torch's operations for the type without one."""
    data = blocks_of("Q5_K", 3)
    with np.errstate(all="ignore"):
        assert_same_bits(dequantise(data, "Q5_K"), by_gguf_py(data, "Q5_K"))
    assert kernels.kernel_kind("Q5_K", data.device) is not None
    assert kernels.kernel_kind("IQ2_S", data.device) is None


def test_without_triton_torch_decodes_and_says_so_once(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    for module in [m for m in sys.modules if m.startswith("gatekit_wan22.kernels.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "triton", None)
    kernels._kinds.cache_clear()
    data = torch.randint(0, 60, (3 * 84,), dtype=torch.uint8)
    try:
        with pytest.warns(RuntimeWarning, match="'triton' is not installed") as told:
            first = dequantise(data, "Q2_K")
            assert torch.equal(dequantise(data, "Q2_K"), first)
        assert len(told) == 1
    finally:
        kernels._kinds.cache_clear()
    assert_same_bits(first, by_gguf_py(data, "Q2_K"))


@pytest.mark.skipif(INTERPRETED, reason="the choice on a plain CPU")
def test_a_cpu_has_no_kernels():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels.kernel_kind("Q2_K", torch.device("cpu")) is None


def test_an_old_gpu_decodes_by_torch_and_is_told_once(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    device = torch.device("cuda", 3)
    kernels._new_enough.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=r"capability 8\.0 .* cuda:3 has 7\.5") as told:
            assert kernels.kernel_kind("Q2_K", device) is None
            assert kernels.kernel_kind("Q5_K", device) is None
        assert len(told) == 1
    finally:
        kernels._new_enough.cache_clear()
