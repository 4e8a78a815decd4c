"""Stored weights as torch operators: whole graphs, gradients, one buffer for all layers."""

import threading

import numpy as np
import pytest
import torch

from gatekit_wan22 import scratch
from gatekit_wan22.dequantise import dequantise
from gatekit_wan22.operators import operators
from gatekit_wan22.stored_linear import new_stored_linear

ROWS, COLUMNS = 24, 256


def layer(dtype=torch.float32, scale=None, name="Q2_K"):
    rng = np.random.default_rng(0)
    size = {"Q2_K": 84, "F8_E4M3": 256}[name]
    stored = torch.from_numpy(rng.integers(0, 56, ROWS * size, dtype=np.uint8))
    bias = torch.from_numpy(rng.normal(size=ROWS)).to(dtype)
    return new_stored_linear(stored, name, (ROWS, COLUMNS), bias, dtype, scale)


def tokens(dtype=torch.float32):
    return torch.randn(2, 3, COLUMNS, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_is_a_product_with_the_decoded_weight(dtype):
    made = layer(dtype)
    weight = dequantise(made.stored, "Q2_K", dtype).view(ROWS, COLUMNS)
    assert torch.equal(made.decoded(), weight)
    wanted = torch.nn.functional.linear(tokens(dtype), weight, made.bias)
    assert torch.equal(made(tokens(dtype)), wanted)


@pytest.mark.parametrize("name", ["Q2_K", "F8_E4M3"])
def test_compiles_to_one_graph(name):
    made = layer(scale=torch.rand(ROWS) if name == "F8_E4M3" else None, name=name)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: made(x).relu() + made.decoded().sum(), fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(tokens()), made(tokens()).relu() + made.decoded().sum())


def test_operators_keep_their_promises():
    """Schema, fake shapes and gradients, as torch checks them."""
    made, ops = layer(), operators()
    args = (made.stored, "Q2_K", ROWS * COLUMNS, torch.bfloat16, None)
    torch.library.opcheck(ops.dequantise, args)
    x = tokens().requires_grad_()
    torch.library.opcheck(ops.stored_linear, (x, made.stored, "Q2_K", ROWS, None, None))


def test_gradient_of_x():
    made, x = layer(), tokens().requires_grad_()
    made(x).square().sum().backward()
    plain = tokens().requires_grad_()
    torch.nn.functional.linear(plain, made.decoded(), made.bias).square().sum().backward()
    assert torch.allclose(x.grad, plain.grad, rtol=1e-6)


def test_one_buffer_for_all_layers():
    scratch.release()
    cpu = torch.device("cpu")
    first, second = layer(), layer(torch.bfloat16)
    wanted = first(tokens()), second(tokens(torch.bfloat16))
    place = scratch.scratch(1, torch.float32, cpu).data_ptr()
    found = first(tokens()), second(tokens(torch.bfloat16))
    assert scratch.scratch(ROWS * COLUMNS, torch.float32, cpu).data_ptr() == place
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    other = []
    thread = threading.Thread(
        target=lambda: other.append(scratch.scratch(1, torch.float32, cpu).data_ptr())
    )
    thread.start()
    thread.join()
    assert other != [place]
    scratch.release()
    assert not scratch._buffers.of


def test_the_buffer_serves_within_inference_mode_and_after_it():
    scratch.release()
    made = layer()
    with torch.inference_mode():
        within = made(tokens())
    assert torch.equal(made(tokens()), within)
    scratch.release()
