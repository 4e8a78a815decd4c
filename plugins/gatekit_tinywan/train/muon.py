"""Muon for matrices and convolution kernels, all of one shape in one batch.

Momentum, then its orthogonal factor by five Newton-Schulz steps: Jordan et al., "Muon: an
optimizer for hidden layers in neural networks" (2024); a kernel ``[out, in, ...]`` is the matrix
``[out, in * ...]``. The update is scaled to the root mean square of an AdamW update (Liu et al.,
arXiv:2502.16982, eq. 4), so that both can share one learning rate. ``torch.optim.Muon`` does the
same one matrix at a time, which at this model's size costs more in launches than the whole step
in arithmetic.
"""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon:
    """Updates parameters of two and more axes; ``param_groups`` is like an optimiser's.

    The learning rate is a tensor, so that a captured step reads its present value.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01
    ) -> None:
        self.momentum, self.decay = momentum, decay
        self.shapes: dict[tuple[int, int], list[nn.Parameter]] = {}
        for p in params:
            self.shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
        device = next((group[0].device for group in self.shapes.values()), None)
        self.param_groups: list[dict[str, Any]] = [{"lr": torch.tensor(lr, device=device)}]
        self.buffers = {
            shape: torch.zeros(len(group), *shape, device=device)
            for shape, group in self.shapes.items()
        }

    @torch.no_grad()
    def step(self) -> None:
        """One update from the parameters' gradients."""
        lr: Tensor = self.param_groups[0]["lr"]
        for shape, group in self.shapes.items():
            grads = torch.stack([p.grad.reshape(shape) for p in group if p.grad is not None])
            grads = grads.float()
            buffer = self.buffers[shape]
            buffer.lerp_(grads, 1 - self.momentum)
            update = _orthogonal(grads.lerp(buffer, self.momentum))
            update *= 0.2 * max(shape) ** 0.5 * lr
            data = [p.data for p in group]
            torch._foreach_mul_(data, 1 - lr * self.decay)
            parts = update.to(group[0].dtype).unbind()
            torch._foreach_sub_(data, [u.view(p.shape) for u, p in zip(parts, data, strict=True)])


def _orthogonal(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values end in 0.7 to 1.2."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x.bfloat16() if x.is_cuda else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float().contiguous()
