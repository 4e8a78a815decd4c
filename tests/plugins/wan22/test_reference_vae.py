"""The VAE against plain float64 over all frames, from the official names of its weights."""

import torch
from safetensors.torch import save_file
from torch.nn.functional import conv2d, conv3d, interpolate, normalize, pad, silu, softmax

from gatekit_wan22 import layout_vae, load_vae
from gatekit_wan22.latent_statistics import MEAN, STD


class VAE:
    """Encoder and decoder of Wan's VAE 2.1, as the layers stand in its files."""

    def __init__(self, state):
        self.w = {name: value.double() for name, value in state.items()}

    def causal(self, name, x, **kwargs):
        """A 3-D convolution that sees the past in time, and zeros around the frame."""
        weight = self.w[f"{name}.weight"]
        t, h, w = weight.shape[2:]
        x = pad(x, (w // 2, w // 2, h // 2, h // 2, t - 1, 0))
        return conv3d(x, weight, self.w[f"{name}.bias"], **kwargs)

    def rms(self, name, x):
        gamma = self.w[f"{name}.gamma"].flatten().view(1, -1, 1, 1, 1)
        return normalize(x, dim=1) * x.shape[1] ** 0.5 * gamma

    def residual(self, name, x):
        y = self.causal(f"{name}.residual.2", silu(self.rms(f"{name}.residual.0", x)))
        y = self.causal(f"{name}.residual.6", silu(self.rms(f"{name}.residual.3", y)))
        return y + (
            self.causal(f"{name}.shortcut", x) if f"{name}.shortcut.weight" in self.w else x
        )

    def per_frame(self, name, x, **kwargs):
        frames = x.shape[2]
        flat = x.transpose(1, 2).flatten(0, 1)
        flat = conv2d(flat, self.w[f"{name}.weight"], self.w[f"{name}.bias"], **kwargs)
        return flat.unflatten(0, (-1, frames)).transpose(1, 2)

    def attention(self, name, x):
        q, k, v = self.per_frame(f"{name}.to_qkv", self.rms(f"{name}.norm", x)).chunk(3, dim=1)
        q, k, v = (a.permute(0, 2, 3, 4, 1).flatten(2, 3) for a in (q, k, v))
        y = softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v
        y = y.unflatten(2, x.shape[3:]).permute(0, 4, 1, 2, 3)
        return x + self.per_frame(f"{name}.proj", y)

    def down(self, name, x):
        x = self.per_frame(f"{name}.resample.1", pad(x, (0, 1, 0, 1)), stride=2)
        if f"{name}.time_conv.weight" in self.w:
            weight, bias = self.w[f"{name}.time_conv.weight"], self.w[f"{name}.time_conv.bias"]
            x = torch.cat([x[:, :, :1], conv3d(x, weight, bias, stride=(2, 1, 1))], dim=2)
        return x

    def up(self, name, x):
        if f"{name}.time_conv.weight" in self.w:
            both = self.causal(f"{name}.time_conv", x[:, :, 1:]).unflatten(1, (2, -1))
            rest = torch.stack([both[:, 0], both[:, 1]], dim=3).flatten(2, 3)
            x = torch.cat([x[:, :, :1], rest], dim=2)
        frames = x.shape[2]
        flat = interpolate(x.transpose(1, 2).flatten(0, 1), scale_factor=2, mode="nearest")
        x = flat.unflatten(0, (-1, frames)).transpose(1, 2)
        return self.per_frame(f"{name}.resample.1", x, padding=1)

    def layers(self, name, x, resample):
        i = 0
        while any(n.startswith(f"{name}.{i}.") for n in self.w):
            is_resampler = f"{name}.{i}.resample.1.weight" in self.w
            x = (resample if is_resampler else self.residual)(f"{name}.{i}", x)
            i += 1
        return x

    def middle(self, name, x):
        x = self.attention(f"{name}.1", self.residual(f"{name}.0", x))
        return self.residual(f"{name}.2", x)

    def head(self, name, x):
        return self.causal(f"{name}.2", silu(self.rms(f"{name}.0", x)))

    def encode(self, x):
        x = self.layers("encoder.downsamples", self.causal("encoder.conv1", x), self.down)
        x = self.head("encoder.head", self.middle("encoder.middle", x))
        return self.causal("conv1", x).chunk(2, dim=1)[0]

    def decode(self, z):
        x = self.middle("decoder.middle", self.causal("decoder.conv1", self.causal("conv2", z)))
        return self.head("decoder.head", self.layers("decoder.upsamples", x, self.up))


def test_vae(tmp_path):
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    model = AutoencoderKLWan(base_dim=8)  # only for names and shapes
    generator = torch.Generator().manual_seed(6)
    state = {}
    for name, value in layout_vae.diffusers_to_official(model.state_dict()).items():
        scale = value[0].numel() ** -0.5 if value.ndim > 1 and "gamma" not in name else 0.2
        noise = torch.randn(value.shape, generator=generator) * scale
        state[name] = noise + ("gamma" in name)
    save_file(state, tmp_path / "vae.safetensors")
    vae, reference = load_vae(tmp_path / "vae.safetensors"), VAE(state)
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 16, 1, 1, 1) for v in (MEAN, STD))
    video = torch.rand(1, 3, 9, 32, 16, generator=generator) * 2 - 1

    wanted = (reference.encode(video.double()) - mean) / std
    assert (vae.encode(video) - wanted).norm() < 5e-6 * wanted.norm()

    latent = torch.randn(1, 16, 3, 4, 2, generator=generator)
    wanted = reference.decode(latent.double() * std + mean).clamp(-1, 1)
    found = vae.decode(latent)
    assert found.shape == (1, 3, 9, 32, 16) and (found.abs() < 1).float().mean() > 0.3
    assert (found - wanted).norm() < 5e-6 * wanted.norm()
