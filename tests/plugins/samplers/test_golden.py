"""Every native sampler gives the latent that was stored, and the same bits each time."""

import golden
import pytest
import torch

# The last bit of exp, log and softmax differs between CPUs; steps and their sums carry it on.
# The adaptive one may then take a step more. A changed coefficient shows above 1e-4.
TOLERANCE = 1e-9


def test_every_native_sampler_has_one():
    names = golden.natives()
    assert len(names) > 30
    assert sorted(golden.stored()) == names, "run python tests/bench/golden.py"


@pytest.mark.parametrize("name", golden.natives())
def test_golden(name):
    found = golden.latent(name)
    expected = torch.tensor(golden.stored()[name], dtype=torch.float64).reshape(golden.SHAPE)
    assert found.dtype == torch.float64
    assert torch.allclose(found, expected, rtol=0, atol=TOLERANCE), (found - expected).abs().max()
    assert torch.equal(golden.latent(name), found)


@pytest.mark.parametrize("name", golden.natives())
def test_float32_is_near(name):
    """And repeats too; its rounding is another, so this tolerance is wide."""
    found = golden.latent(name, torch.float32)
    assert torch.equal(golden.latent(name, torch.float32), found)
    expected = torch.tensor(golden.stored()[name]).reshape(golden.SHAPE)
    assert torch.allclose(found, expected, rtol=0, atol=2e-3)


def test_no_two_samplers_share_one():
    """A latent that any sampler gives would test none. Nothing here sets commit's limiter off."""
    seen = {}
    for name, values in golden.stored().items():
        seen.setdefault(tuple(round(v, 6) for v in values), []).append(name)
    assert [names for names in seen.values() if len(names) > 1] == [["commit", "unipc"]]
