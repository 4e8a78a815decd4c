"""GGUF blocks -> float32 in registers: for each type a loader and a plane, in Triton.

Every type is cut into *units* of one shape, so that one kernel body serves all:

- A unit is 8 neighbouring bytes of quants and all weights that they hold: P planes of 8 weights,
  P = 4 for 2 bits, 2 for nibbles, 1 for bytes. A lane of a warp holds a unit; its quants are read
  once, as words. The 8 weights of a plane are neighbours in the row: 16 bytes of bf16, one store.
- Neighbouring lanes hold neighbouring units, so a warp reads a stretch of the file without holes.
  Words are 32 bits where a block's size is a multiple of 4 (Q2_K 84, Q4_K 144, Q5_K 176, Q4_1 20,
  Q5_1 24, IQ4_XS 136), else 16 (Q3_K 110, Q6_K 210, Q8_0 34, Q4_0 and IQ4_NL 18, Q5_0 22). Only
  Q4_K's and Q5_K's sizes allow more, and it would save little: the words of a lane lie in the same
  32-byte sectors, and all but the first come from L1.
- 4 (K) or 2 (legacy, IQ4) neighbouring lanes write 64 or 32 bytes without a hole: whole sectors.

``bits.py`` has what all share, ``k_types.py``, ``legacy.py`` and ``iq4.py`` the types:
``load_*(words, block, lane)`` returns what a unit needs, ``plane_*(unit, lane, j, p)`` its 8
weights ``[units, 8]`` of plane ``p``, with ``j`` 0 to 7 as ``[1, 8]``. The arithmetic and its order
are those of ``../blocks.py``. Products are exact in float32 (11 bits of a half, at most 7 of a
scale, 6 of a quant: 24), so each weight is rounded once, in the subtraction of its minimum, and it
makes no difference whether a compiler contracts the product and the subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .iq4 import load_iq4_xs, plane_iq4
from .k_types import (
    load_q2_k,
    load_q3_k,
    load_q4_k,
    load_q5_k,
    load_q6_k,
    plane_q2_k,
    plane_q3_k,
    plane_q4_k,
    plane_q5_k,
    plane_q6_k,
)
from .legacy import (
    load_q4_0,
    load_q4_1,
    load_q5_0,
    load_q5_1,
    load_q8_0,
    plane_q4_0,
    plane_q4_1,
    plane_q5_0,
    plane_q5_1,
    plane_q8_0,
)


@dataclass(frozen=True, eq=False)
class Kind:
    """How a type is cut into units. Each is its own: as a key it costs no look at its parts.

    Args:
        load: Its loader.
        plane: Its plane.
        weights: Weights of a block.
        size: Bytes of a block.
        planes: Planes of a unit.
        run: Neighbouring units whose weights in a plane are neighbours.
    """

    load: Any
    plane: Any
    weights: int
    size: int
    planes: int
    run: int

    @property
    def word(self) -> int:
        """Bytes of a word: what a block's size is a multiple of."""
        return 2 if self.size % 4 else 4

    @property
    def lanes(self) -> int:
        """Units of a block."""
        return self.weights // (8 * self.planes)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """What a kernel is compiled for, in the order of its arguments."""
        return {
            "LOAD": self.load,
            "PLANE": self.plane,
            "WEIGHTS": self.weights,
            "WORDS": self.size // self.word,
            "PLANES": self.planes,
            "RUN": self.run,
            "LANES": self.lanes,
        }


KINDS = {
    "Q2_K": Kind(load_q2_k, plane_q2_k, 256, 84, 4, 4),
    "Q3_K": Kind(load_q3_k, plane_q3_k, 256, 110, 4, 4),
    "Q4_K": Kind(load_q4_k, plane_q4_k, 256, 144, 2, 4),
    "Q5_K": Kind(load_q5_k, plane_q5_k, 256, 176, 2, 4),
    "Q6_K": Kind(load_q6_k, plane_q6_k, 256, 210, 4, 4),
    "Q8_0": Kind(load_q8_0, plane_q8_0, 32, 34, 1, 4),
    "Q4_0": Kind(load_q4_0, plane_q4_0, 32, 18, 2, 2),
    "Q4_1": Kind(load_q4_1, plane_q4_1, 32, 20, 2, 2),
    "Q5_0": Kind(load_q5_0, plane_q5_0, 32, 22, 2, 2),
    "Q5_1": Kind(load_q5_1, plane_q5_1, 32, 24, 2, 2),
    "IQ4_NL": Kind(load_q4_0, plane_iq4, 32, 18, 2, 2),
    "IQ4_XS": Kind(load_iq4_xs, plane_iq4, 256, 136, 2, 2),
}
