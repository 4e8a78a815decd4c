"""The autoencoder's layers as fewer, larger kernels, for training on a GPU.

Three things take most of a step with the modules as they are, none of them arithmetic: the
normalisation, activation and padding before each convolution pass over memory five times in
float32; nearest upsampling goes through float32; and convolutions over 3 channels, which tensor
cores cannot align. The same functions here: one Triton kernel each way for the first, a copy for
the second, channels padded to 8 for the third. ``taps`` further turns each 3x3x3 convolution into
one 2-D convolution with three outputs, one for each time tap, which are then added: 2-D kernels
are better tuned. Which is fastest is found by timing; ``off`` gives the modules back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("off", "fused", "taps")


def use(vae: Any, kind: str) -> None:
    """Make ``vae`` (AutoencoderKLWan in whole clips) run as ``kind`` of ``KINDS``."""
    taps = kind == "taps"
    for module in vae.modules():
        name = type(module).__name__
        if name == "WanResidualBlock":
            _set(module, None if kind == "off" else partial(_residual, module, taps))
        elif name == "WanUpsample":
            _set(module, None if kind == "off" else _upsample)
        elif name in ("WanEncoder3d", "WanDecoder3d"):
            norm, act = module.norm_out, module.nonlinearity
            _set(norm, None if kind == "off" else partial(_activate, norm))
            _set(act, None if kind == "off" else _same)
            _set(module.conv_in, None if kind == "off" else partial(_conv_in, module.conv_in, taps))
            conv = module.conv_out
            _set(conv, None if kind == "off" else partial(_convolve, conv, taps))


def activate(x: Tensor, gamma: Tensor) -> Tensor:
    """Normalise over channels, SiLU, pad for a causal 3x3x3 convolution.

    ``y = silu(sqrt(C) gamma x / |x|)``, zeros around: ``[B, C, T, H, W]`` ->
    ``[B, C, T + 2, H + 2, W + 2]``, the two frames before the first.
    """
    if x.is_cuda:
        from gatekit_tinywan.train.kernels import NormSiluPad

        return NormSiluPad.apply(x, gamma)
    y = F.silu(F.normalize(x.float(), dim=1) * x.shape[1] ** 0.5 * gamma)
    return F.pad(y, (1, 1, 1, 1, 2, 0)).to(x.dtype)


class TimeSum(torch.autograd.Function):
    """``[B, T + 2, 3 C, H, W]`` -> ``[B, T, C, H, W]``: frame t is the sum of tap k at t + k."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        """Add the three shifted parts."""
        frames, channels = y.shape[1] - 2, y.shape[2] // 3
        a, b, c = (y[:, k : k + frames, k * channels : (k + 1) * channels] for k in range(3))
        return (a + b).add_(c)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Every tap gets the gradient, shifted."""
        batch, frames, channels, height, width = grad.shape
        # channels last, as the convolution wants it
        result = grad.new_zeros(batch, frames + 2, height, width, 3 * channels)
        result = result.permute(0, 1, 4, 2, 3)
        for k in range(3):
            result[:, k : k + frames, k * channels : (k + 1) * channels] = grad
        return result


def _set(module: Any, forward: Any) -> None:
    if forward is not None:
        module.forward = forward
    elif "forward" in vars(module):
        del module.forward


def _same(x: Tensor) -> Tensor:
    return x


def _activate(norm: Any, x: Tensor) -> Tensor:
    return activate(x, norm.gamma)


def _residual(block: Any, taps: bool, x: Tensor, *_: object, **__: object) -> Tensor:
    h = _convolve(block.conv1, taps, activate(x, block.norm1.gamma))
    h = _convolve(block.conv2, taps, activate(h, block.norm2.gamma))
    return h + block.conv_shortcut(x)


def _upsample(x: Tensor) -> Tensor:
    """Twice as high and wide by repetition: exact, so it needs no float32."""
    batch, channels, height, width = x.shape
    wide = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
    return wide.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def _conv_in(conv: Any, taps: bool, x: Tensor, *_: object) -> Tensor:
    return _convolve(conv, taps, F.pad(x, (1, 1, 1, 1, 2, 0)))


def _convolve(conv: Any, taps: bool, x: Tensor, *_: object) -> Tensor:
    """3x3x3 convolution of ``x``, which is padded already."""
    weight, bias = conv.weight, conv.bias
    wanted = weight.shape[0]
    more_in, more_out = -weight.shape[1] % 8, -wanted % 8
    if more_in:
        x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, more_in))
    if more_in or more_out:
        weight = F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more_in, 0, more_out))
        bias = F.pad(bias, (0, more_out))
    if taps:
        weight = weight.permute(2, 0, 1, 3, 4).flatten(0, 1)
        flat = x.transpose(1, 2).flatten(0, 1)
        y = F.conv2d(flat, weight.contiguous(memory_format=torch.channels_last))
        y = TimeSum.apply(y.unflatten(0, (x.shape[0], x.shape[2])))
        y = y.transpose(1, 2) + bias.to(y.dtype).view(-1, 1, 1, 1)
    else:
        y = F.conv3d(x, weight, bias)
    return y[:, :wanted] if more_out else y
