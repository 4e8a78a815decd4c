"""Backends that diffusers does not have: a model runs with each of them, and goes back."""

import pytest
import torch

from gatekit import Execution
from gatekit_wan22 import WanConditioning, attention, attention_own


@pytest.mark.parametrize(("name", "least", "most"), [("cudnn_fp8", 1e-4, 0.1), ("flash4", 0, 1e-5)])
def test_a_model_runs_with_it_and_goes_back(name, least, most, wan, inputs, tools, monkeypatch):
    own, calls = attention_own.OWN[name], []
    inner = own.attend
    monkeypatch.setattr(own, "FEW_KEYS", 1)
    monkeypatch.setattr(own, "attend", lambda q, k, v: (calls.append(k.shape), inner(q, k, v))[1])
    monkeypatch.setattr(attention, "lacking", lambda *_: None)
    variant = tools.open_file(wan.path)
    variant.configure(Execution(attention="native"))
    variant.load("cpu", "fp32")
    condition = WanConditioning(text=inputs.text)
    native = variant.velocity(inputs.x, inputs.sigma, condition)
    variant.configure(Execution(attention=name))
    found = variant.velocity(inputs.x, inputs.sigma, condition)
    assert calls and least <= float((found - native).norm() / native.norm()) < most
    calls.clear()
    variant.configure(Execution(attention="native"))
    assert torch.equal(variant.velocity(inputs.x, inputs.sigma, condition), native) and not calls
