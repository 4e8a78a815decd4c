"""The own steps of self-attention and of the feed-forward part in fp8, against diffusers'.

On a CPU, where torch's operations stand for the kernels; ``tests/bench/compute.py`` holds the
kernels against them on a GPU.
"""

import pytest
import torch
from wan_block import TINY, in_fp8, inputs, random_blocks

from gatekit_wan22 import attention, attention_fp8, compiling, self_attention
from gatekit_wan22.feed_forward import use_fp8_feed_forward
from gatekit_wan22.fp8 import gelu_quantised, quantised

BF16 = torch.bfloat16
GRID = (2, 3, 4)


def relative(a, b):
    return float((a.float() - b.float()).norm() / b.float().norm())


@pytest.fixture
def plain():
    return random_blocks(TINY, 2, BF16, "cpu", 0)


@pytest.fixture
def given():
    return inputs(TINY, GRID, BF16, "cpu")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Let a CPU take what only a GPU takes; says how often it did."""
    taken = []

    def takes(attn, hidden, text, mask, rotary):
        own = text is None and rotary is not None
        taken.append(own)
        return own

    def on():
        monkeypatch.setattr(self_attention, "takes", takes)
        return taken

    return on


def test_a_cpu_does_as_diffusers_does(plain, given):
    attn, (x, text, _, rotary) = plain.blocks[0].attn1, given
    takes = self_attention.takes
    assert not takes(attn, x, None, None, rotary)
    assert not takes(attn, x, text, None, None)


@pytest.mark.parametrize("own", ["native", "math"])
def test_a_block_is_the_same_to_the_bit(plain, given, as_on_a_gpu, own):
    attention.use_backend(plain, own)
    wanted = plain(*given)
    taken = as_on_a_gpu()
    assert torch.equal(plain(*given), wanted)
    assert taken == [True, True]  # of each block the self-attention, not the text's


def test_compiled_it_stays_whole(plain, given, as_on_a_gpu, monkeypatch):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    wanted = plain(*given)
    as_on_a_gpu()
    compiling.use_compiled(plain, True)
    assert relative(plain(*given), wanted) < 2e-3
    compiling.use_compiled(plain, False)


@pytest.fixture
def rounds_on_a_cpu(monkeypatch):
    """Attention in fp8 of few keys, in float32 by its reference."""
    monkeypatch.setattr(attention_fp8, "FEW_KEYS", 2)
    monkeypatch.setattr(attention_fp8, "WIDTHS", (128,))


@pytest.mark.parametrize("arithmetic", ["bf16", "fp8"])
def test_attention_in_fp8_is_near_that_in_16_bits(
    arithmetic, plain, given, as_on_a_gpu, rounds_on_a_cpu
):
    as_on_a_gpu()
    x, *rest = given
    model = in_fp8(plain) if arithmetic == "fp8" else plain
    attention.use_backend(model, "native")
    exact = model(x, *rest).float() - x.float()
    attention.use_backend(model, attention_fp8.NAME)
    found = model(x, *rest).float() - x.float()
    assert 1e-4 < relative(found, exact) < 0.05
    # No farther than what diffusers' steps give, rounded: there each number is rounded twice.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_attention, "takes", lambda *_: False)
        other = model(x, *rest).float() - x.float()
    assert relative(found, exact) < 1.1 * relative(other, exact)


def test_padding_with_zeros_shrinks_the_output_by_as_little_as_is_said(monkeypatch):
    monkeypatch.setattr(attention_fp8, "FEW_KEYS", 2)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2047, 128, generator=generator) for _ in range(3))
    found, scale = attention_fp8.of_projections(q, k, v, 1)
    monkeypatch.setattr(attention_fp8, "MOST_ADDED", 0.0)
    without, its = attention_fp8.of_projections(q, k, v, 1)
    assert torch.equal(scale, its) and found.shape == without.shape
    assert relative(found, without) < 0.01


def test_gelu_is_rounded_as_two_steps_would():
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(2)) * 3
    q, scale = gelu_quantised(x)
    wanted, its = quantised(torch.nn.functional.gelu(x, approximate="tanh"))
    assert torch.equal(q.float(), wanted.float()) and torch.equal(scale, its)


def test_the_feed_forward_part_in_fp8_keeps_names_and_numbers(plain, given):
    model = in_fp8(plain)
    names = [name for name, _ in model.named_modules()]
    wanted = model(*given)
    use_fp8_feed_forward(model.blocks)
    assert [name for name, _ in model.named_modules()] == names
    assert torch.equal(model(*given), wanted)


def test_a_lora_beside_the_second_product_sees_gelu_itself(plain, given):
    from gatekit_wan22.lora.branch import lora_linear_class

    model = in_fp8(plain)
    use_fp8_feed_forward(model.blocks)
    before = model(*given)
    seen = []
    for block in model.blocks:
        last = block.ffn.net[2]
        block.ffn.net[2] = lora_linear_class()(last, [], [], [])
        block.ffn.net[2].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    assert torch.equal(model(*given), before)
    assert len(seen) == 2 and all(float(x.min()) > -0.18 for x in seen)  # the least of GELU


def test_in_fp8_and_compiled_it_stays_whole(
    plain, given, as_on_a_gpu, rounds_on_a_cpu, monkeypatch
):
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    model = in_fp8(plain)
    as_on_a_gpu()
    attention.use_backend(model, attention_fp8.NAME)
    wanted = model(*given)
    compiling.use_compiled(model, True)
    assert relative(model(*given), wanted) < 2e-3
    compiling.use_compiled(model, False)
