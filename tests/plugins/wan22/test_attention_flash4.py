"""FlashAttention 4: the operator around it, on a CPU by torch; what the package is called with."""

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch

from gatekit_wan22 import attention_flash4, attention_own


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def wanted(q, k, v):
    heads = (t.transpose(1, 2) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2)


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(attention_flash4, "FEW_KEYS", 1)


def test_few_keys_are_torchs(monkeypatch):
    monkeypatch.setattr(attention_flash4, "operator", None)  # would fail if it were asked for
    q, k, v = (random(1, n, 2, 64, seed=i) for i, n in enumerate((40, 77, 77)))
    assert torch.allclose(attention_flash4.attend(q, k, v), wanted(q, k, v), atol=1e-6)


@pytest.mark.parametrize("keys", [40, 7])
def test_it_is_attention_of_any_layout_and_stays_whole_when_compiled(keys, few):
    q, k, v = (random(1, 2, n, 64, seed=i).transpose(1, 2) for i, n in enumerate((40, keys, keys)))
    found = attention_flash4.attend(q, k, v)
    assert found.is_contiguous() and torch.allclose(found, wanted(q, k, v), atol=1e-6)
    attention_own.dispatched()
    compiled = torch.compile(attention_flash4.attend, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(q, k, v), found)
    torch.library.opcheck(
        torch.ops.gatekit.attention_flash4.default, (q, k, v), test_utils="test_faketensor"
    )


@pytest.mark.parametrize("with_sums", [False, True])
def test_the_package_is_given_contiguous_tensors_on_their_device(monkeypatch, with_sums):
    devices = []

    @contextlib.contextmanager
    def device(place):
        devices.append(place)
        yield

    def flash_attn_func(q, k, v):
        assert devices and all(t.is_contiguous() for t in (q, k, v))
        out = wanted(q, k, v)
        return (out, None) if with_sums else out

    monkeypatch.setattr(torch.cuda, "device", device)
    fake = SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn", SimpleNamespace(cute=fake))
    monkeypatch.setitem(sys.modules, "flash_attn.cute", fake)
    q, k, v = (random(1, 2, 9, 64, seed=i).transpose(1, 2) for i in range(3))
    found = attention_flash4.by_package(q, k, v)
    assert found.is_contiguous() and torch.allclose(found, wanted(q, k, v), atol=1e-6)
    assert devices == [q.device]
