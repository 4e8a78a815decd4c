"""The transformer's blocks run by somebody else: the same bits, and the model as it was."""

import pytest
import torch

from gatekit_wan22 import WanConditioning


@pytest.fixture
def variant(wan, tools):
    found = tools.open_file(wan.path)
    found.load("cpu", "fp32")
    yield found
    found.unload()


def test_all_blocks_in_order_are_the_velocity(variant, inputs):
    conditioning = WanConditioning(text=inputs.text, image=None)
    seen = []

    def body(blocks, hidden):
        for block in blocks:
            seen.append(tuple(hidden.shape))
            hidden = block(hidden)
        return hidden

    whole = variant.velocity(inputs.x, inputs.sigma, conditioning)
    assert torch.equal(variant.through(inputs.x, inputs.sigma, conditioning, body), whole)
    assert seen == [(2, 18, 256)] * 2
    assert torch.equal(variant.velocity(inputs.x, inputs.sigma, conditioning), whole)


def test_a_block_left_out_changes_the_result(variant, inputs):
    conditioning = WanConditioning(text=inputs.text, image=None)
    whole = variant.velocity(inputs.x, inputs.sigma, conditioning)
    short = variant.through(inputs.x, inputs.sigma, conditioning, lambda b, h: b[0](h))
    assert not torch.allclose(short, whole, rtol=1e-3)


def test_the_model_is_left_as_it_was_after_an_error(variant, inputs):
    names = [name for name, _ in variant.module.named_parameters()]
    conditioning = WanConditioning(text=inputs.text, image=None)

    def body(blocks, hidden):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        variant.through(inputs.x, inputs.sigma, conditioning, body)
    assert [name for name, _ in variant.module.named_parameters()] == names
    assert len(variant.module.blocks) == 2
