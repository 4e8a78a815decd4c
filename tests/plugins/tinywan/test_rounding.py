"""Weights as a Q2_K file holds them: the rounding of training, and the quantiser's weights."""

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")

from gatekit_tinywan.train.importance import importance
from gatekit_tinywan.train.models import build_transformer
from gatekit_tinywan.train.quantise import quantise
from gatekit_tinywan.train.rounding import Rounding, round_blocks


@pytest.fixture
def weight():
    return torch.randn(32, 256, generator=torch.Generator().manual_seed(0))


def test_rounding_is_as_coarse_as_the_format(weight):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    rounded = round_blocks(weight)
    for block in rounded.reshape(-1, 16):
        assert len(block.unique()) <= 4
    theirs = dequantize(quantise(weight.numpy(), "Q2_K"), GGMLQuantizationType.Q2_K)
    ours = float((rounded - weight).norm()) / float(np.linalg.norm(theirs - weight.numpy()))
    assert 0.85 < ours < 1.1


def test_a_file_s_own_values_nearly_stay(weight):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    held = torch.from_numpy(dequantize(quantise(weight.numpy(), "Q2_K"), GGMLQuantizationType.Q2_K))
    assert float((round_blocks(held) - held).norm() / held.norm()) < 0.1  # of fresh ones 0.28


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_constant_weights_stay_finite(value):
    rounded = round_blocks(torch.full((2, 256), value))
    assert rounded.isfinite().all() and float((rounded - value).abs().max()) < 0.04


def test_all_or_nothing_and_back_to_the_bit(weight):
    parameters = [torch.nn.Parameter(weight.clone()), torch.nn.Parameter(weight.reshape(16, 512))]
    before = [p.detach().clone() for p in parameters]
    torch.manual_seed(0)
    seen = []
    rounding = Rounding(parameters, 0.5)
    for _ in range(32):
        rounding.apply()
        same = [torch.equal(p.detach(), b) for p, b in zip(parameters, before, strict=True)]
        assert all(same) or not any(same)
        seen.append(same[0])
        rounding.undo()
        assert all(torch.equal(p.detach(), b) for p, b in zip(parameters, before, strict=True))
    assert 6 < sum(seen) < 26


def test_gradients_are_those_at_the_rounded_weights(weight):
    p = torch.nn.Parameter(weight.clone())
    x = torch.randn(256, generator=torch.Generator().manual_seed(1))
    rounding = Rounding([p], 1.0)
    rounding.apply()
    (p @ x).square().sum().backward()
    rounding.undo()
    expected = 2 * (round_blocks(weight) @ x)[:, None] * x
    torch.testing.assert_close(p.grad, expected)
    assert torch.equal(p.detach(), weight)


def test_the_quantiser_errs_less_where_it_matters(weight):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    matters = np.linspace(0.01, 10, 256, dtype=np.float32) ** 2

    def error(weights):
        blocks = quantise(weight.numpy(), "Q2_K", weights)
        found = dequantize(blocks, GGMLQuantizationType.Q2_K)
        return float((matters * (found - weight.numpy()) ** 2).sum())

    assert error(matters) < 0.95 * error(None)
    with pytest.raises(ValueError, match="importance of shape"):
        quantise(weight.numpy(), "Q2_K", matters[:5])


def test_importance_is_the_mean_square_of_the_inputs():
    torch.manual_seed(0)
    transformer = build_transformer()
    text = torch.randn(2, 7, 128)
    calls = [(torch.randn(2, 36, 2, 4, 4), torch.tensor([0.3, 0.8]), text) for _ in range(2)]
    found = importance(transformer, iter(calls))
    assert len(found) == 10 * 5
    assert all(v.shape in {(256,), (1024,)} and (v > 0).all() for v in found.values())
    with torch.no_grad():  # every block's cross-attention reads the same embedded text
        embedded = transformer.condition_embedder.text_embedder(text)
    expected = embedded.flatten(0, 1).square().mean(0)
    np.testing.assert_allclose(found["blocks.3.cross_attn.k.weight"], expected, rtol=1e-4)
    hooks = sum(len(m._forward_pre_hooks) for m in transformer.modules())
    assert hooks == 0
