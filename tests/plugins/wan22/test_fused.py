"""The fused product in Gluon, run on the CPU by ``gluon_on_cpu``, against gguf-py.

In a process of its own, as ``test_kernels.py``.
"""

import pytest
import torch
from gguf_bytes import TYPES, blocks_of, by_gguf_py
from in_interpreter import check_in_interpreter, interpreted, starts_interpreter

from gatekit_wan22.operators import linear


@starts_interpreter
def test_in_the_interpreter():
    check_in_interpreter(__file__)


@pytest.fixture
def product(monkeypatch):
    """``fused`` with the kernel on the CPU."""
    from gluon_on_cpu import on_cpu

    from gatekit_wan22.kernels import fused, fused_kernel

    monkeypatch.setattr(fused_kernel, "fused_kernel", on_cpu(fused_kernel.fused_kernel))
    return fused.fused


def case(name, tokens, rows, columns, biased):
    """x, blocks, bias and the exact product with weights rounded once."""
    from gatekit_wan22.kernels.kinds import KINDS

    data = blocks_of(name, rows * columns // KINDS[name].weights, finite=True)
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(tokens, columns, generator=generator).half()
    bias = torch.randn(rows, generator=generator).half() if biased else None
    w = by_gguf_py(data, name).half().double().view(rows, columns)
    exact = x.double() @ w.t() + (0 if bias is None else bias.double())
    return x, data, bias, exact


@interpreted
@pytest.mark.parametrize("name", TYPES)
def test_every_type(name, product):
    from gatekit_wan22.kernels.fused import Tile
    from gatekit_wan22.kernels.kinds import KINDS

    x, data, bias, exact = case(name, 5, 40, 768, biased=name != "Q2_K")
    found = product(x, data, KINDS[name], 40, bias, Tile(64, 32))
    assert found.dtype == torch.float16
    assert (found - exact).norm() < 1e-3 * exact.norm()  # fp16's rounding is 2e-4


@interpreted
@pytest.mark.parametrize(
    "tile",
    [
        {"programs": 4},
        {"programs": 7},
        {"programs": 1000},
        {"programs": 1},
        {"stages": 5},
        {"stages": 7, "held": 4, "programs": 5},
        {"rows": 128},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "tokens", "rows"), [("Q2_K", 33, 130), ("Q5_K", 64, 64)])
def test_tiles_and_programs(tile, name, tokens, rows, product):
    """Also programs that share tiles, in any number: they leave the count of arrivals at zero."""
    from gatekit_wan22.kernels.fused import Tile
    from gatekit_wan22.kernels.kinds import KINDS

    x, data, bias, exact = case(name, tokens, rows, 1280, biased=True)
    zeros = torch.zeros(64, dtype=torch.int32)
    tile = Tile(**{"rows": 64, "tokens": 32} | tile)
    found = product(x, data, KINDS[name], rows, bias, tile, zeros)
    assert found.shape == (tokens, rows)
    assert (found - exact).norm() < 1e-3 * exact.norm()
    assert not zeros.any()


@interpreted
def test_too_few_buffers_are_seen(product):
    """By ``gluon_on_cpu``: a test of the tests."""
    from triton.runtime.errors import InterpreterError

    from gatekit_wan22.kernels.fused import Tile
    from gatekit_wan22.kernels.kinds import KINDS

    x, data, _, _ = case("Q2_K", 32, 64, 1024, biased=False)
    with pytest.raises(InterpreterError, match="may still read"):
        product(x, data, KINDS["Q2_K"], 64, None, Tile(64, 32, held=2))


@interpreted
def test_the_choice_by_tokens(product, monkeypatch):
    """For the numbers of tokens in ``USED`` alone, and whole steps of columns."""
    from gatekit_wan22.kernels import fused

    made = []
    monkeypatch.setattr(fused, "fused", lambda *args: made.append(args[0].shape) or product(*args))
    monkeypatch.setattr(fused, "available", lambda device: True)
    monkeypatch.setattr(fused, "sms_of", lambda device: 5)
    monkeypatch.setattr(fused, "TYPES", ("Q2_K", "Q4_0"))
    for columns, used in [(512, range(0)), (512, range(2, 40)), (288, range(2, 40))]:
        monkeypatch.setattr(fused, "USED", used)
        for tokens in (1, 2, 39, 40):
            x, data, bias, exact = case("Q4_0", tokens, 48, columns, biased=True)
            found = linear(x.view(1, tokens, columns), data, "Q4_0", 48, bias)
            assert found.shape == (1, tokens, 48)
            assert (found[0] - exact).norm() < 1e-3 * exact.norm()
    assert made == [(2, 512), (39, 512)]
    monkeypatch.setattr(fused, "TYPES", ("Q2_K",))  # another type is decoded first
    x, data, bias, _ = case("Q4_0", 2, 48, 512, biased=True)
    linear(x.view(1, 2, 512), data, "Q4_0", 48, bias)
    assert len(made) == 2


@interpreted
def test_where_it_cannot_be_compiled_weights_are_decoded_first(monkeypatch):
    from triton.runtime.errors import PTXASError

    from gatekit_wan22.kernels import fused

    asked = []

    def broken(*args):
        asked.append(args[0].shape)
        raise PTXASError("no such instruction")

    monkeypatch.setattr(fused, "fused", broken)
    monkeypatch.setattr(fused, "available", lambda device: True)
    monkeypatch.setattr(fused, "sms_of", lambda device: 5)
    monkeypatch.setattr(fused, "_cannot", set())
    x, data, bias, exact = case("Q2_K", 2, 48, 512, biased=True)
    with pytest.warns(RuntimeWarning, match="decode their weights first on cpu.*no such instr"):
        found = linear(x, data, "Q2_K", 48, bias)
    assert (found - exact).norm() < 1e-3 * exact.norm()
    linear(x, data, "Q2_K", 48, bias)  # a warning would fail the test
    assert asked == [(2, 512)]


@interpreted
def test_a_cpu_is_not_a_hopper():
    from gatekit_wan22.kernels import fused

    assert not fused.available(torch.device("cpu"))
