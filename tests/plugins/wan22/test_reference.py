"""The transformer and the text encoder against plain float64 written from their definition.

No library model is used here, only the official names of the weights, so a wrong name, a
wrong order of channels or a wrong rotary split shows.
"""

import math

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import conv3d, gelu, layer_norm, linear, silu, softmax

from gatekit_wan22 import WanConditioning, load_text_encoder

HEAD = 128


class Wan:
    """v(x, sigma, text) of a Wan transformer, in float64."""

    def __init__(self, state):
        self.w = {name: value.double() for name, value in state.items()}
        self.dim = self.w["text_embedding.2.bias"].numel()
        self.layers = 1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))

    def lin(self, name, x):
        return linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def norm(self, x, name=None):
        weight, bias = (self.w[f"{name}.{p}"] if name else None for p in ("weight", "bias"))
        return layer_norm(x, (self.dim,), weight, bias, eps=1e-6)

    def rms(self, name, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.w[f"{name}.weight"]

    def rotate(self, x, places):
        """x [L, heads, 128] by frame, row and column in shares of 44, 42 and 42 channels."""
        out, start = [], 0
        for axis, width in enumerate((44, 42, 42)):
            i = torch.arange(0, width, 2, dtype=torch.float64)
            angle = places[:, axis, None] * 10000.0 ** (-i / width)
            turn = torch.polar(torch.ones_like(angle), angle)[:, None]
            pairs = x[..., start : start + width].unflatten(-1, (-1, 2)).contiguous()
            out.append(torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2))
            start += width
        return torch.cat(out, dim=-1)

    def attention(self, name, x, source, places=None):
        q = self.rms(f"{name}.norm_q", self.lin(f"{name}.q", x)).unflatten(-1, (-1, HEAD))
        k = self.rms(f"{name}.norm_k", self.lin(f"{name}.k", source)).unflatten(-1, (-1, HEAD))
        v = self.lin(f"{name}.v", source).unflatten(-1, (-1, HEAD))
        if places is not None:
            q, k = self.rotate(q, places), self.rotate(k, places)
        weights = softmax(torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(HEAD), dim=-1)
        return self.lin(f"{name}.o", torch.einsum("hqk,khd->qhd", weights, v).flatten(1))

    def __call__(self, x, sigma, text):
        w, patch = self.w, (1, 2, 2)
        _, frames, height, width = x.shape
        x = conv3d(x[None], w["patch_embedding.weight"], w["patch_embedding.bias"], stride=patch)
        f, h, c = frames, height // 2, width // 2
        x = x[0].flatten(1).T
        places = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in (f, h, c)))
        i = torch.arange(128, dtype=torch.float64)
        angle = 1000 * sigma * 10000.0 ** (-i / 128)
        time = torch.cat([angle.cos(), angle.sin()])
        time = self.lin("time_embedding.2", silu(self.lin("time_embedding.0", time)))
        six = self.lin("time_projection.1", silu(time)).view(6, self.dim)
        text = gelu(self.lin("text_embedding.0", text), approximate="tanh")
        text = self.lin("text_embedding.2", text)
        for n in range(self.layers):
            b = f"blocks.{n}"
            e = w[f"{b}.modulation"][0] + six
            y = self.norm(x) * (1 + e[1]) + e[0]
            x = x + self.attention(f"{b}.self_attn", y, y, places) * e[2]
            x = x + self.attention(f"{b}.cross_attn", self.norm(x, f"{b}.norm3"), text)
            y = self.norm(x) * (1 + e[4]) + e[3]
            y = self.lin(f"{b}.ffn.2", gelu(self.lin(f"{b}.ffn.0", y), approximate="tanh"))
            x = x + y * e[5]
        e = w["head.modulation"][0] + time
        x = self.lin("head.head", self.norm(x) * (1 + e[1]) + e[0])
        x = x.view(f, h, c, 1, 2, 2, -1)
        return torch.einsum("fhwpqrc->cfphqwr", x).reshape(-1, frames, height, width)


@pytest.mark.parametrize("sigma", [1.0, 0.7004, 0.0312])
def test_transformer(sigma, wan, inputs, tools):
    reference = Wan(wan.state)
    variant = tools.open_file(wan.path)
    variant.load("cpu", "fp32")
    found = variant.velocity(inputs.x, sigma, WanConditioning(text=inputs.text))
    variant.unload()
    for x, v in zip(inputs.x, found, strict=True):
        wanted = reference(x.double(), sigma, inputs.text[0].double())
        assert (v - wanted).norm() < 2e-6 * wanted.norm()


def test_image_to_video(inputs, tools, tmp_path):
    """Channels: noise 16, mask 4, condition 16."""
    state = tools.official(tools.random_wan(in_channels=36, layers=1))
    save_file(state, tmp_path / "i2v.safetensors")
    image = torch.randn(1, 20, *inputs.x.shape[2:], generator=torch.Generator().manual_seed(4))
    variant = tools.open_file(tmp_path / "i2v.safetensors")
    variant.load("cpu", "fp32")
    found = variant.velocity(inputs.x, 0.9, WanConditioning(text=inputs.text, image=image))
    variant.unload()
    stacked = torch.cat([inputs.x[0], image[0, :4], image[0, 4:]]).double()
    wanted = Wan(state)(stacked, 0.9, inputs.text[0].double())
    assert (found[0] - wanted).norm() < 2e-6 * wanted.norm()


def umt5(state, ids, heads):
    """Embeddings [L, d] of a UMT5 encoder, in float64: pre-norm, gated, bias in every layer."""
    w = {name: value.double() for name, value in state.items()}

    def rms(name, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]

    def bucket(distance):
        """32 buckets, half for each direction: 8 exact, then logarithmic up to 128."""
        past = 16 if distance > 0 else 0
        n = abs(distance)
        if n < 8:
            return past + n
        return past + min(15, 8 + int(math.log(n / 8) / math.log(128 / 8) * 8))

    x = w["token_embedding.weight"][ids]
    length = len(ids)
    table = [[bucket(key - query) for key in range(length)] for query in range(length)]
    layer = 0
    while (b := f"blocks.{layer}") + ".norm1.weight" in w:
        y = rms(f"{b}.norm1", x)
        q, k, v = (linear(y, w[f"{b}.attn.{m}.weight"]).unflatten(-1, (heads, -1)) for m in "qkv")
        bias = w[f"{b}.pos_embedding.embedding.weight"][torch.tensor(table)].permute(2, 0, 1)
        weights = softmax(torch.einsum("qhd,khd->hqk", q, k) + bias, dim=-1)
        y = torch.einsum("hqk,khd->qhd", weights, v).flatten(1)
        x = x + linear(y, w[f"{b}.attn.o.weight"])
        y = rms(f"{b}.norm2", x)
        gate = gelu(linear(y, w[f"{b}.ffn.gate.0.weight"]), approximate="tanh")
        y = linear(y, w[f"{b}.ffn.fc1.weight"]) * gate
        x = x + linear(y, w[f"{b}.ffn.fc2.weight"])
        layer += 1
    return rms("norm", x)


def test_text_encoder(tmp_path):
    generator = torch.Generator().manual_seed(5)
    d, ff, heads, inner = 24, 40, 3, 36
    shapes = {"token_embedding.weight": (50, d), "norm.weight": (d,)}
    for n in range(2):
        b = f"blocks.{n}"
        shapes |= {f"{b}.attn.{m}.weight": (inner, d) for m in "qkv"}
        shapes |= {f"{b}.attn.o.weight": (d, inner), f"{b}.norm1.weight": (d,)}
        shapes |= {f"{b}.norm2.weight": (d,), f"{b}.ffn.gate.0.weight": (ff, d)}
        shapes |= {f"{b}.ffn.fc1.weight": (ff, d), f"{b}.ffn.fc2.weight": (d, ff)}
        shapes |= {f"{b}.pos_embedding.embedding.weight": (32, heads)}
    state = {n: torch.randn(s, generator=generator) * 0.4 for n, s in shapes.items()}
    save_file(state, tmp_path / "umt5.safetensors")
    ids = torch.randint(0, 50, (1, 200), generator=generator)
    found = load_text_encoder(tmp_path / "umt5.safetensors").embed_ids(ids)[0]
    wanted = umt5(state, ids[0], heads)
    assert (found - wanted).norm() < 5e-6 * wanted.norm()
