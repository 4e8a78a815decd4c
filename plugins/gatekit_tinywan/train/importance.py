"""How much each input of each block matrix matters: what the quantiser weighs its errors with.

An error dW of a matrix changes its output by dW x, in the mean by sum_j dW_ij^2 E[x_j^2] where the
inputs are uncorrelated. So the weights of llama.cpp's importance matrix are the mean squares of a
layer's inputs, and so are these.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gatekit_wan22 import layout_transformer


@torch.no_grad()
def importance(
    transformer: Any, calls: Iterable[tuple[Tensor, Tensor, Tensor]]
) -> dict[str, np.ndarray]:
    """Mean square of every input of every block matrix.

    Args:
        transformer: The trained module.
        calls: (input ``[B, 36, T, h, w]``, s ``[B]``, text ``[B, L, d]``) of what it is used for.

    Returns:
        ``[columns]`` float32 by the matrix's official name.
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def watch(name: str) -> Any:
        def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().float().flatten(0, -2)
            sums[name] = x.square().sum(0) + sums.get(name, 0)
            counts[name] = counts.get(name, 0) + len(x)

        return before

    handles = [
        module.register_forward_pre_hook(watch(f"{name}.weight"))
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and name.startswith("blocks.")
    ]
    try:
        for x, sigma, text in calls:
            transformer(x, 1000.0 * sigma, text, return_dict=False)
    finally:
        for handle in handles:
            handle.remove()
    means = {name: (sums[name] / counts[name]).cpu().numpy() for name in sums}
    return layout_transformer.diffusers_to_official(means)
