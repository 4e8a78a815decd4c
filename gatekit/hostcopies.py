"""Copies of a run's tensors in host memory, made without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class HostCopies:
    """Copies one state after the other; what the state before held already is not copied again.

    Most of a state is history, which the next one shares. A tensor that was changed in place since
    its copy, which torch counts, is copied anew. On a GPU the copy is put on the stream that
    computes, into pinned memory: nothing waits, and later changes come after it.
    """

    def __init__(self) -> None:
        self._before: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._now: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._devices: set[Any] = set()
        self.copied_bytes = 0

    def of(self, tensor: Tensor) -> Tensor:
        """A contiguous copy in host memory, which is filled once ``turn``'s answer returns."""
        version = _version(tensor)
        known = self._now.get(id(tensor)) or self._before.get(id(tensor))
        if known is None or known[0] is not tensor or known[1] != version or version < 0:
            known = (tensor, version, self._copy(tensor.detach()))
        self._now[id(tensor)] = known
        return known[2]

    def turn(self) -> Callable[[], None]:
        """The state is whole: what to call, in any thread, before its copies are read."""
        self._before, self._now = self._now, {}
        events: list[Any] = []
        for device in self._devices:
            import torch

            with torch.cuda.device(device):
                event = torch.cuda.Event()
                event.record()  # pyright: ignore[reportUnknownMemberType]
            events.append(event)
        self._devices.clear()

        def arrived() -> None:
            for event in events:
                event.synchronize()

        return arrived

    def _copy(self, tensor: Tensor) -> Tensor:
        import torch

        self.copied_bytes += tensor.nbytes
        if tensor.device.type != "cuda":
            return tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        host.copy_(tensor, non_blocking=True)
        self._devices.add(tensor.device)
        return host


def _version(tensor: Tensor) -> int:
    """How often torch saw it changed in place; -1 where it does not count."""
    try:
        return tensor._version
    except RuntimeError:  # made in inference mode
        return -1
