"""Norm, rotation and rounding of heads: torch's operations against diffusers, kernels against them.

The kernels run by Triton's interpreter, in a process of their own. It rounds to bf16 and e4m3
wrongly, so fp16 stands for the one, and what is rounded to the other is let err by a step.
"""

import numpy as np
import pytest
import torch
from in_interpreter import check_in_interpreter, interpreted, starts_interpreter

from gatekit_wan22.heads import LARGEST, Norm, in_fp8, operators, reference, rotated

HEADS, DIM = 3, 32
CHANNELS = HEADS * DIM
F8 = torch.float8_e4m3fn


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def norm(tokens, dtype=torch.float32):
    """Norm and rotation as a Wan model has them, of so many tokens in one frame's row."""
    from diffusers.models.transformers.transformer_wan import WanRotaryPosEmbed

    rope = WanRotaryPosEmbed(DIM, (1, 2, 2), 64)
    cos, sin = rope(torch.empty(1, 16, 1, 2, 2 * tokens))
    weight = 1 + 0.3 * normal(CHANNELS, seed=5)
    return Norm(weight.to(dtype), 1e-6, cos, sin)


def by_diffusers(x, how):
    """Queries that diffusers' processor hands to attention."""
    from diffusers.models.transformers import transformer_wan

    attn = transformer_wan.WanAttention(CHANNELS, HEADS, DIM, eps=how.eps)
    attn = attn.to(x.dtype).requires_grad_(False)
    attn.norm_q.weight.copy_(how.weight)
    attn.to_q = torch.nn.Identity()
    seen = []

    class StopError(Exception):
        pass

    def dispatch(query, *_, **__):
        seen.append(query)
        raise StopError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopError):
        patch.setattr(transformer_wan, "dispatch_attention_fn", dispatch)
        transformer_wan.WanAttnProcessor()(attn, x, None, None, (how.cos, how.sin))
    return seen[0]


def value(q, scale):
    return q.float() * scale


def steps(q):
    """The distance of e4m3 numbers from their neighbours, at least."""
    _, exponent = torch.frexp(q.float())
    return torch.ldexp(torch.ones_like(q, dtype=torch.float32), exponent.clamp(min=-5) - 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch", [1, 2])
def test_rotated_heads_are_those_of_diffusers(dtype, batch):
    x, how = normal(batch, 9, CHANNELS, dtype=dtype) * 3, norm(9, dtype)
    found = rotated(x, HEADS, how)
    assert found.shape == (batch, 9, HEADS, DIM) and found.is_contiguous()
    assert torch.equal(found, by_diffusers(x, how))


def test_a_rotation_keeps_lengths_and_depends_on_distance_alone():
    how = norm(12)._replace(weight=torch.ones(CHANNELS))
    x = normal(1, 1, CHANNELS).expand(1, 12, -1)
    found = rotated(x, HEADS, how)
    assert torch.allclose(found.norm(dim=-1), found[:, :1].norm(dim=-1).expand(1, 12, -1))
    products = torch.einsum("bshd,bkhd->bhsk", found, found)[0, 0]
    for distance in range(12):
        line = products.diagonal(distance)
        assert torch.allclose(line, line[:1].expand(len(line)), atol=1e-3)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_rounded_heads_are_near_what_they_round(normed, centred):
    x = normal(2, 11, CHANNELS) + 4 * normal(CHANNELS, seed=3)
    how = norm(11) if normed else None
    wanted = reference(x, HEADS, how) if how else x.unflatten(2, (HEADS, DIM))
    if centred:
        wanted = wanted - wanted.mean(1, keepdim=True)
    q, scale = in_fp8(x, HEADS, 16, how, centred)
    assert q.shape == (2, 16, HEADS, DIM) and q.dtype == F8 and scale.shape == (1,)
    assert not value(q, scale)[:, 11:].any()
    largest = float(q.float().abs().max())
    assert largest == LARGEST if not (normed or centred) else LARGEST / 16 < largest <= LARGEST
    assert torch.allclose(value(q, scale)[:, :11], wanted, rtol=1 / 16, atol=float(scale) * 2**-9)


def test_compilers_keep_the_operators():
    operators()
    x, how = normal(1, 6, CHANNELS), norm(6)

    def both(x):
        return rotated(x, HEADS, how), *in_fp8(x, HEADS, 8, how, True), *in_fp8(x, HEADS, 6)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for got, wanted in zip(compiled(x), both(x), strict=True):
        assert torch.equal(got.float(), wanted.float()) and got.shape == wanted.shape
    ops = torch.ops.gatekit
    check = {"test_utils": ("test_schema", "test_faketensor")}
    torch.library.opcheck(ops.rotated_heads.default, (x, HEADS, *how), **check)
    given = (x, HEADS, 8, None, 0.0, None, None, True)
    torch.library.opcheck(ops.heads_in_fp8.default, given, **check)


@starts_interpreter
def test_in_the_interpreter():
    check_in_interpreter(__file__)


@interpreted
@pytest.mark.parametrize("tokens", [1, 9, 40])
def test_the_kernel_rotates_as_torch_does(tokens):
    from gatekit_wan22.kernels.heads import rotate

    half = torch.float16
    x, how = normal(2, tokens, CHANNELS, dtype=half) * 3, norm(tokens, half)
    with np.errstate(all="ignore"):
        found = rotate(x, HEADS, how, rows=8)
    wanted = reference(x, HEADS, how)
    assert found.dtype == half
    assert torch.allclose(found.float(), wanted.float(), rtol=2e-3, atol=4e-3)


@interpreted
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("normed", [False, True])
def test_the_kernels_round_as_torch_does(normed, centred):
    from gatekit_wan22.heads import by_kernels, reference_fp8

    x = (normal(2, 37, CHANNELS) + 4 * normal(CHANNELS, seed=3)).half()
    how = norm(37, torch.float16) if normed else None
    with np.errstate(all="ignore"):
        q, scale = by_kernels(x, HEADS, 40, how, centred)
    wanted, its = reference_fp8(x, HEADS, 40, how, centred)
    assert torch.allclose(scale, its, rtol=1e-5)
    q, wanted = q.float(), wanted.float()
    uncarried = (torch.frexp(wanted)[0].abs() == 0.5) & (2 * q == wanted)  # the interpreter's fault
    assert bool((((q - wanted).abs() <= steps(wanted)) | uncarried).all())
    assert uncarried.float().mean() < 0.05
    assert not value(q, scale)[:, 37:].any()


@interpreted
@pytest.mark.parametrize("centred", [False, True])
def test_nan_does_not_become_a_number(centred):
    from gatekit_wan22.heads import by_kernels

    x = normal(1, 37, CHANNELS).half()
    x[0, 20, 7] = torch.nan
    with np.errstate(all="ignore"):
        _, scale = by_kernels(x, HEADS, 37, None, centred)
    assert scale.isnan().all()


def test_no_normed_number_exceeds_the_bound():
    """One channel that has it all, and the largest weight, turned to where nothing is lost."""
    x, how = torch.zeros(1, 5, CHANNELS), norm(5)
    x[..., 6] = 100.0
    how.weight[6] = -5.0
    q, scale = in_fp8(x, HEADS, 5, how)
    assert float(q[0, 0, 0, 6].float()) == -LARGEST
    assert torch.isfinite(value(q, scale)).all()


def test_whatever_is_taken_off_the_keys_attention_stays():
    """Keys far from zero: rounded as they are they lose what centring keeps."""
    keys = normal(1, 70, CHANNELS, seed=1) + 40 * normal(CHANNELS, seed=2)
    query, v = normal(1, 9, HEADS, DIM, seed=3), normal(1, 70, HEADS, DIM, seed=4)

    def attention(k):
        heads = (t.transpose(1, 2) for t in (query, k, v))
        return torch.nn.functional.scaled_dot_product_attention(*heads)

    exact = attention(keys.unflatten(2, (HEADS, DIM)))
    off = [
        float((attention(value(*in_fp8(keys, HEADS, 70, None, c))) - exact).norm() / exact.norm())
        for c in (False, True)
    ]
    assert off[1] < 0.1 < off[0]
