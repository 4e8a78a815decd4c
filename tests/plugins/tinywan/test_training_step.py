"""The captured parts of training: they never wait for the device, and fused layers are the same."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("diffusers")

from gatekit_tinywan.train import fit, fused
from gatekit_tinywan.train.config import REHEARSAL
from gatekit_tinywan.train.models import TextConditioned, build_vae
from gatekit_tinywan.train.vae import _Gradients, _start_narrow
from gatekit_wan22.whole_clip import decode_clip, encode_clip

READS_BACK = {"_local_scalar_dense", "nonzero", "masked_select", "randperm", "item"}


class _NoReads(TorchDispatchMode):
    """Fails at any operation that needs a value on the CPU; a CUDA graph cannot hold one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.__name__.split(".")[0] not in READS_BACK, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_the_check_sees_a_read():
    with _NoReads(), pytest.raises(AssertionError, match="waits for the device"):
        float(torch.ones(1))


def test_autoencoder_gradients_read_nothing_back():
    compute = _Gradients(build_vae(), 1e-6, (1, 5, 32), "cpu")
    with _NoReads():
        assert compute().ndim == 0


@pytest.mark.parametrize(("with_text", "rounded"), [(True, 0.0), (False, 0.3)])
def test_denoiser_gradients_read_nothing_back(monkeypatch, with_text, rounded):
    from gatekit_tinywan.train.dataset import Dataset, code_classes
    from gatekit_tinywan.train.denoiser import Range, train_denoiser
    from gatekit_tinywan.vocabulary import TEXT_LENGTH

    seen: list[torch.Tensor] = []

    class Once:
        def __init__(self, gradients, params, opt, average, device, *, together, group):
            with _NoReads():
                seen.append(gradients())
            assert all(p.grad is not None for p in params)

        def __call__(self, rate):
            return seen[0]

    monkeypatch.setattr(fit, "Step", Once)
    clips = torch.randn(4, 16, 7, 12, 12)
    codes = torch.zeros(4, len(code_classes()), dtype=torch.long)
    ids = torch.ones(4, TEXT_LENGTH, dtype=torch.long)
    lengths, unit = torch.ones(4, dtype=torch.long), torch.ones(16)
    data = Dataset(
        clips, clips[:2], ids, lengths, codes, unit, unit, torch.tensor([3]), 2 * torch.eye(16)
    )
    model = TextConditioned()
    train_denoiser(
        model, data, Range(0.0, 1.0, 3.0), 1e-9, 1e-3, REHEARSAL, "cpu", lambda **_: None,
        name="base", with_text=with_text, together=True, rounded=rounded,
    )  # fmt: skip
    plain, counted = seen[0]
    assert float(plain) > 0
    torch.testing.assert_close(counted, 4 * plain)


@pytest.mark.parametrize("decay_from", [0.3, 0.8])
def test_the_rate_is_whole_until_it_decays(decay_from):
    def rate(progress):
        return fit.learning_rate(2.0, progress, decay_from=decay_from)

    assert rate(0.0) < 0.1 and rate(0.02) == rate(decay_from) == 2.0
    assert 2.0 > rate(decay_from + 0.1) > rate(0.95) > rate(1.0)
    assert rate(1.0) == pytest.approx(0.02)


def test_the_rate_of_a_part_that_another_follows():
    assert fit.learning_rate(2.0, 1.0, decay_from=1.0) == 2.0


@pytest.mark.parametrize("kind", fused.KINDS[1:])
def test_fused_layers_are_the_same_function(kind):
    torch.manual_seed(0)
    vae = build_vae()
    video = torch.randn(1, 3, 9, 32, 32)
    results = []
    for use in ("off", kind, "off"):
        fused.use(vae, use)
        vae.zero_grad()
        mean, logvar = encode_clip(vae, video)
        output = decode_clip(vae, mean)
        (output.square().mean() + logvar.mean()).backward()
        results.append((output.detach(), torch.cat([p.grad.reshape(-1) for p in vae.parameters()])))
    for wanted, found in zip(results[0], results[1], strict=True):
        assert (found - wanted).norm() < 1e-4 * wanted.norm()
    assert torch.equal(results[0][0], results[2][0])  # "off" gives the modules back


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_kernels_against_the_plain_formula():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    from gatekit_tinywan.train.kernels import NormSiluPad

    torch.manual_seed(0)
    for shape in ((2, 32, 3, 5, 6), (1, 64, 1, 4, 4)):
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last_3d)
        gamma, grad = torch.randn(shape[1], 1, 1, 1), None
        results = []
        for function, device in ((fused.activate, "cpu"), (NormSiluPad.apply, "cuda")):
            a = x.detach().to(device).requires_grad_()
            g = gamma.detach().to(device).requires_grad_()
            y = function(a, g)
            grad = torch.randn_like(y) if grad is None else grad.to(device)
            y.backward(grad)
            results.append([v.detach().cpu() for v in (y, a.grad, g.grad)])
        for wanted, found in zip(*results, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_posterior_starts_narrow():
    vae = build_vae()
    _start_narrow(vae)
    deviation = torch.exp(0.5 * encode_clip(vae, torch.rand(1, 3, 5, 32, 32))[1])
    assert deviation.max() < 0.2
