"""Passes of a loaded model: launched as they are, or replayed as a CUDA graph where they are few.

What is replayed is decided twice: by a plan, from what it knows (``chosen``), and at each pass.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gatekit import Execution, PhaseAsk

from . import attention_fp8
from .graphs import Capture, Graphs

if TYPE_CHECKING:
    from torch import Tensor

# Tokens of a pass, its batch included. To launch A14B's 40 blocks takes hosts 55 to 180 ms;
# the GPU takes 36 ms for 510 tokens, 86 for 1,530 and 216 for 4,590, where nothing is waited for.
# The price is memory: a graph keeps what a pass takes to run (``Placing.footprint``).
MOST = 3072


class Passes:
    """Runs the passes of one variant, whatever model it has loaded; ``forget`` before that goes."""

    def __init__(self) -> None:
        self._graphs: Graphs | None = None

    @property
    def graphs(self) -> int:
        """Number of graphs that are held."""
        return 0 if self._graphs is None else len(self._graphs)

    def run(self, model: Any, device: str, how: Execution | None, *given: Tensor) -> Tensor:
        """The output of ``model``.

        Args:
            model: diffusers' module.
            device: Where it is.
            how: How it is configured, if its weights stay as and where they are; else None.
            given: Input ``[B, C, T, H, W]``, time ``[B]`` or ``[B, tokens]``, text.
        """
        launched = partial(launch, model)
        # cuDNN's plans of it live as long as their thread, which a graph may outlive.
        bound_to_thread = how is not None and how.attention == attention_fp8.NAME
        if how is None or not how.replayed or bound_to_thread or not replayable(model, given):
            return launched(*given)
        if self._graphs is None:
            capture = capture_on(device)
            if capture is None:
                return launched(*given)
            self._graphs = Graphs(capture)
        return self._graphs.run(launched, given, (how.attention, how.compiled))

    def forget(self) -> None:
        """Drop the graphs; what could not be captured is not tried again even so."""
        if self._graphs is not None:
            self._graphs.drop()
            if not self._graphs.failed:
                self._graphs = None


def launch(model: Any, *given: Tensor) -> Tensor:
    """One pass, launched from Python."""
    return model(*given, return_dict=False)[0]


def capture_on(device: str) -> Capture | None:
    """What captures work on a device; None where nothing can."""
    if not device.startswith("cuda"):
        return None
    from .capturing import CudaCapture

    return CudaCapture(device)


def replayable(model: Any, given: tuple[Tensor, ...]) -> bool:
    """Whether a pass with these inputs may be replayed.

    Not so with a time for each token: what times there are is looked up on the host. Nor where
    somebody else runs the blocks, or gradients may be asked for.
    """
    import torch

    from .chain import in_chain

    x, time = given[0], given[1]
    batch, _, frames, height, width = x.shape
    few = batch * frames * (height // 2) * (width // 2) <= MOST
    return few and time.ndim == 1 and not torch.is_grad_enabled() and not in_chain(model)


def chosen(ask: PhaseAsk, tokens: int, device: str) -> bool:
    """Whether a phase's passes are to be replayed, as far as a plan can tell.

    Not with LoRAs, whose strengths may change between phases, and with them what is computed.
    """
    few = device.startswith("cuda") and tokens <= MOST
    as_it_is = ask.compile is False or ask.deterministic or ask.cached
    as_it_is = as_it_is or ask.attention == attention_fp8.NAME
    return few and not as_it_is and not getattr(ask.variant.params, "loras", ())


def remark(tokens: int, first_frame: bool) -> str:
    """The plan's line.

    Args:
        tokens: Of a pass.
        first_frame: Whether an image would be the first frame.
    """
    unless = " and no image is given" if first_frame else ""
    return (
        f"replayed as a CUDA graph from the third pass on, as {tokens} tokens are few, where all "
        f"weights stay on the GPU{unless}"
    )
