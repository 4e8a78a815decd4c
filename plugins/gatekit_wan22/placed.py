"""A model whose weights arrive in the background: some to stay, some anew in every pass.

Every block's tensors are views of one piece of memory: of its own where it stays, of one of the
slots where it is streamed. Which slot never changes, so a layer's tensors are the same objects in
every pass: compiled code sees nothing of it. What is streamed is what the file stores.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gatekit import Carrier, Load, Piece, Placement

from .arriving import aim
from .feed_forward import use_fp8_feed_forward
from .mapped import MappedFile
from .model import empty_transformer
from .procession import tell
from .putting import put, put_rounded, put_stored, weights
from .shared import Held, find, hold
from .units import Part, Units, aligned

if TYPE_CHECKING:
    from torch import Tensor

    from .sizes import TransformerSizes


class PlacedModel:
    """A transformer under construction and in use; ``admit`` lets weights in.

    Args:
        mapped: Its file.
        units: How it is cut.
        sizes: Its sizes.
        device: Where it goes.
        placement: Which blocks stay, which are streamed.
        carrier: Brings the bytes. Reading begins at once.
        ahead: Resident blocks to be read first; the others follow in order of use.

    Attributes:
        model: diffusers' transformer; its weights are there when it runs.
        whole: Whether everything was admitted.
    """

    def __init__(
        self,
        mapped: MappedFile,
        units: Units,
        sizes: TransformerSizes,
        device: str,
        placement: Placement,
        carrier: Carrier,
        ahead: Sequence[int] = (),
    ) -> None:
        self.mapped, self.units, self.device = mapped, units, device
        self.placement, self.carrier = placement, carrier
        self.model = empty_transformer(sizes)
        self.model.rope.to(device)
        if any(part.form == "rounded" for parts in units.blocks for part in parts):
            use_fp8_feed_forward(self.model.blocks)
        self.whole = False
        self._fixed: dict[str, Tensor] | None = None
        self._held: list[Held] = []
        self._memory: dict[int, Tensor] = {}  # of each resident block
        self._slots: list[Tensor] = []
        self._free: dict[int, Any] = {}  # slot -> event after which it may be written
        self._staging: Tensor | None = None
        self._scales: dict[str, Tensor | None] = {}
        streamed = placement.streamed
        self._slot = {block: n % placement.slots for n, block in enumerate(streamed)}
        self._waits: dict[int, Load] = {}  # resident blocks that have not been waited for
        self._coming: deque[tuple[int, Load]] = deque()  # streamed blocks, in order of use
        shared = [(part, find(part, mapped, device)) for part in units.fixed]
        self._shared = {part.name: held for part, held in shared if held is not None}
        fixed = [self._piece(p) for p in units.fixed if p.name not in self._shared]
        self._first = carrier.send(fixed, open=False)
        self._wait_first = True
        for block in (*ahead, *(b for b in range(len(units.blocks)) if b not in ahead)):
            if block in self._slot:
                self._send(block)
            else:
                pieces = [self._piece(part) for part in units.blocks[block]]
                self._waits[block] = carrier.send(pieces, open=False)
        tell(self.model, self._begin, self._arrive, self._leave)

    def admit(self, blocks: Iterable[int] | None) -> None:
        """Give memory to these resident blocks, and to what is always there; all, if None."""
        import torch

        with torch.inference_mode(False), torch.no_grad():
            if self._fixed is None:
                self._admit_fixed()
            wanted = self.placement.resident if blocks is None else blocks
            for block in wanted:
                if block not in self._memory:
                    memory = self._empty(self.units.block_bytes[block])
                    self._memory[block] = memory
                    self._bind(block, memory, self._waits[block])
                    self.carrier.open(self._waits[block], self._event())
            if blocks is None and not self.whole:
                self.whole = True
                largest = max((self.units.block_bytes[b] for b in self._slot), default=0)
                self._slots = [self._empty(largest) for _ in range(self.placement.slots)]
                for block, slot in self._slot.items():
                    self._bind(block, self._slots[slot], None)
                self._restart(None)

    def _admit_fixed(self) -> None:
        if self.units.staging:
            self._staging = self._empty(self.units.staging)
        self._fixed, pieces = {}, iter(self._first.pieces)
        stored: list[tuple[Part, Tensor]] = []
        for part in self.units.fixed:
            shared = self._shared.get(part.name)
            if shared is not None:
                memory = shared.tensor
                self._held.append(shared)
            else:
                memory = self._empty(aligned(part.nbytes))
                self._held.append(hold(part, self.mapped, self.device, memory))
                self._aim(next(pieces), part, memory)
            if part.form == "stored":
                stored.append((part, memory))
            else:
                self._fixed[part.name] = value = weights(part, memory)
                put(self.model, part, value)
        for part, memory in stored:
            self._put_stored(part, memory)
        self.carrier.open(self._first, self._event())

    def _bind(self, block: int, memory: Tensor, load: Load | None) -> None:
        """Make a block's tensors views of its memory, and send what is on its way there."""
        for i, part in enumerate(self.units.blocks[block]):
            if load is not None:
                self._aim(load.pieces[i], part, memory)
            if part.form == "stored":
                self._put_stored(part, memory)
            elif part.form == "rounded":
                put_rounded(self.model, part, memory, self._bias(part))
            else:
                put(self.model, part, weights(part, memory))

    def _bias(self, part: Part) -> Tensor:
        """The bias beside a matrix."""
        assert self._fixed is not None
        return self._fixed[part.name.removesuffix("weight") + "bias"]

    def _put_stored(self, part: Part, memory: Tensor) -> None:
        put_stored(self.model, part, memory, self._bias(part), self._scale(part))

    def _piece(self, part: Part) -> Piece:
        path = part.info.file or self.mapped.header.path
        return Piece(path, part.info.offset, part.info.nbytes)

    def _aim(self, piece: Piece, part: Part, memory: Tensor) -> None:
        """Say where the bytes of a part go."""
        aim(piece, part, memory, self._staging, self._scale(part))

    def _scale(self, part: Part) -> Tensor | None:
        """What a part's weights are multiplied by, read once."""
        if part.name not in self._scales:
            self._scales[part.name] = self.mapped.scale(part.info, self.device)
        return self._scales[part.name]

    def _empty(self, count: int) -> Tensor:
        import torch

        return torch.empty(count, dtype=torch.uint8, device=self.device)

    def _event(self) -> Any:
        """What this thread has asked of the device so far; None on a CPU, which has done it."""
        if not self.device.startswith("cuda"):
            return None
        import torch

        with torch.cuda.device(self.device):
            event = torch.cuda.Event()
            event.record()  # pyright: ignore[reportUnknownMemberType]
        return event

    def _send(self, block: int) -> None:
        """Read a streamed block after those that are on their way already."""
        pieces = [self._piece(part) for part in self.units.blocks[block]]
        if self._slots:
            memory = self._slots[self._slot[block]]
            for piece, part in zip(pieces, self.units.blocks[block], strict=True):
                self._aim(piece, part, memory)
        self._coming.append((block, self.carrier.send(pieces, open=False)))

    def _restart(self, block: int | None) -> None:
        """Every slot is free; stream from this block on, or go on with what was sent."""
        if block is not None:
            self.carrier.drop([load for _, load in self._coming])
            self._coming.clear()
            streamed = self.placement.streamed
            first = streamed.index(block)
            for each in (*streamed[first:], *streamed[:first]):
                self._send(each)
        else:  # sent before there were slots
            for each, load in self._coming:
                for piece, part in zip(load.pieces, self.units.blocks[each], strict=True):
                    self._aim(piece, part, self._slots[self._slot[each]])
        event = self._event()
        self._free = dict.fromkeys(range(len(self._slots)), event)
        self._open()

    def _open(self) -> None:
        """Let the next blocks into slots that are free, in order."""
        for block, load in self._coming:
            if load.open:
                continue
            if self._slot[block] not in self._free:
                return
            self.carrier.open(load, self._free.pop(self._slot[block]))

    def _begin(self) -> None:
        """The model is about to run."""
        if self._wait_first:
            self.carrier.wait(self._first)
            self._wait_first = False
            for held in self._held:
                held.arrived = True

    def _arrive(self, block: int) -> None:
        """A block is about to run: its weights must be there."""
        if block in self._waits:
            self._unblock(block)
            self.carrier.wait(self._waits[block])
            del self._waits[block]
        elif block in self._slot:
            if self._coming[0][0] != block:  # a pass was left early, or leaves blocks out
                self._restart(block)
            self.carrier.wait(self._coming[0][1])

    def _unblock(self, block: int) -> None:
        """Let a resident block arrive where streamed ones before it were left out of the pass.

        Loads arrive in order, and those of the blocks left out wait for slots that nobody leaves.
        """
        number = self._waits[block].number
        if any(not load.open and load.number < number for _, load in self._coming):
            streamed = self.placement.streamed
            self._restart(next((each for each in streamed if each > block), streamed[0]))

    def _leave(self, block: int) -> None:
        """A block has run, or will have when the device is there."""
        if block in self._slot:
            self._coming.popleft()
            self._free[self._slot[block]] = self._event()
            self._send(block)
            self._open()

    @property
    def still(self) -> bool:
        """Whether every weight is where it stays: passes wait for none, and move none."""
        return self.whole and not (self._slot or self._waits or self._wait_first)

    def rest(self) -> bool:
        """End what runs in the background; False where weights are not there, or not to stay."""
        pending = [*self._waits.values(), *([self._first] if self._wait_first else [])]
        if not self.whole or self._slot or not all(load.arrived for load in pending):
            return False
        self._begin()
        for block in list(self._waits):
            self._arrive(block)
        self.carrier.close()
        return True

    def close(self) -> None:
        """End what runs in the background, and free the memory whoever still refers to it."""
        self.carrier.close()
        for memory in (*self._memory.values(), *self._slots):
            with contextlib.suppress(RuntimeError):
                memory.untyped_storage().resize_(0)
        self._memory.clear()
        self._slots.clear()
        self._held.clear()
        self._shared.clear()
        if self.model is not None:  # it refers to itself there: it is to go without a search for it
            self.model.condition_embedder.__dict__.pop("forward", None)
        self._fixed = self._staging = self.model = None
