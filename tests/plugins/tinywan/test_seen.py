"""The weight of the loss is what the decoder does with an error."""

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers")

from gatekit_tinywan.train import seen
from gatekit_tinywan.world import HELD_OUT_SEED, sample_scenes


class Linear:
    """A decoder that mixes channels by a matrix and repeats each value over its pixels."""

    config = SimpleNamespace(patch_size=None, is_residual=False)

    def __init__(self, mix):
        self.mix = mix

    def post_quant_conv(self, latent):
        return torch.einsum("rc,bcthw->brthw", self.mix, latent)

    def decoder(self, x):
        return torch.nn.functional.interpolate(x, size=(25, 96, 96))


def test_metric_of_a_linear_decoder():
    torch.manual_seed(0)
    mix, std = torch.randn(3, 4), torch.tensor([1.0, 2.0, 0.5, 1.0])
    scenes = sample_scenes(HELD_OUT_SEED, range(3), split="held_out")
    form = seen.metric(Linear(mix), torch.randn(3, 4, 7, 12, 12), scenes, (torch.randn(4), std))
    wanted = (mix * std).T @ (mix * std)
    wanted *= 4 / wanted.trace()
    assert float(form.trace()) == pytest.approx(4, rel=1e-4)
    assert (form - wanted).norm() < 0.1 * wanted.norm()


def test_loss_is_the_share_of_both():
    torch.manual_seed(0)
    error, half = torch.randn(2, 4, 3, 5, 5), torch.randn(4, 4)
    form = half @ half.T
    whole = torch.einsum("bcthw,cd,bdthw->", error, form, error) / error.numel()
    for share in (0.0, 0.75):
        found = seen.weighted(error, seen.root(form, share))
        wanted = (1 - share) * error.square().mean() + share * whole
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
